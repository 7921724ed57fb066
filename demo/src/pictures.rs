//! Product pictures: flat illustrations, one drawing a shelf, varied by palette, backdrop, side and detail.
//!
//! Generated on request from the product's index: no file, no network, deterministic.

use std::fmt::Write as _;

use crate::random::Random;

/// The subject of a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the things they show")]
pub enum Shape {
    Tent,
    SleepingBag,
    Stove,
    Backpack,
    Boot,
    Helmet,
    BikeLight,
    Pannier,
    Grinder,
    Brewer,
    Beans,
    Pan,
    Knife,
    Lamp,
    Blanket,
    Plant,
    Pot,
    Notebook,
    Pen,
    Keyboard,
    Headphones,
    Speaker,
    Turntable,
    Game,
}

/// Backdrop, body, its shadow side, its light side, accent.
type Palette = [&'static str; 5];

const PALETTES: [Palette; 10] = [
    ["#f4e3cf", "#d9643a", "#a8441f", "#f0956b", "#2f6f73"],
    ["#dbe9e4", "#2f7f6b", "#1d5a4b", "#6bb59f", "#e8a33d"],
    ["#e3e4f3", "#4d5bb0", "#343f84", "#8b97dd", "#f0b45a"],
    ["#f6e1e1", "#b94a5c", "#85303f", "#e08a97", "#3d6b8c"],
    ["#e9ecd8", "#7a8f3c", "#566728", "#aec16f", "#c8573a"],
    ["#d9e8f2", "#2e7fb0", "#1c587e", "#77b7dd", "#f2c14e"],
    ["#f3ead7", "#c08a2b", "#8a5f16", "#e3bb6c", "#4a5d7a"],
    ["#ece2f0", "#7d529c", "#573570", "#b48dcd", "#5aa68a"],
    ["#e4e6e8", "#54616e", "#38424c", "#8b98a5", "#e2703a"],
    ["#fbe6d3", "#e08a2e", "#a95f13", "#f4b770", "#376e8c"],
];

/// The picture of a product as SVG, 400 by 400.
pub fn picture(number: usize, shape: Shape) -> String {
    let mut random = Random::new(number as u64, "picture");
    // Neighbours on a shelf never share a palette.
    let [back, body, dark, light, accent] = PALETTES[(number * 7 + number / 10 * 3) % PALETTES.len()];
    let variant = random.index(3);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200" width="400" height="400"><rect width="200" height="200" fill="{back}"/>"##
    );
    let (x, y) = (random.between(55, 145), random.between(60, 110));
    let _ = match random.index(4) {
        0 => write!(svg, r##"<circle cx="{x}" cy="{y}" r="62" fill="#fff" opacity=".5"/>"##),
        1 => write!(svg, r##"<path d="M0 {y}q50-40 100-8t100-14v142H0z" fill="#fff" opacity=".42"/>"##),
        2 => write!(svg, r##"<rect x="22" y="22" width="156" height="156" rx="34" fill="#fff" opacity=".45"/>"##),
        _ => write!(svg, r##"<path d="M0 200V{y}L200 {x}v{}z" fill="#fff" opacity=".42"/>"##, 200 - x),
    };
    let _ = write!(svg, r##"<ellipse cx="100" cy="166" rx="66" ry="8" fill="{dark}" opacity=".18"/>"##);
    let flip = if random.chance(0.5) { "translate(200 0) scale(-1 1)" } else { "" };
    let _ = write!(svg, r##"<g transform="{flip}" stroke-linecap="round" stroke-linejoin="round">"##);
    svg.push_str(&drawing(shape, variant, body, dark, light, accent));
    svg.push_str("</g></svg>");
    svg
}

#[rustfmt::skip]
fn drawing(shape: Shape, variant: usize, body: &str, dark: &str, light: &str, accent: &str) -> String {
    match shape {
        Shape::Tent => {
            let guy = if variant == 0 { 28 } else { 18 };
            format!(r##"<path d="M100 52L168 164H32z" fill="{body}"/><path d="M100 52L168 164H122z" fill="{dark}"/>
<path d="M100 52L80 164h42z" fill="{light}"/><path d="M100 74L90 164h20z" fill="{dark}"/>
<path d="M100 52V38l20 7-20 7" fill="{accent}" stroke="{dark}" stroke-width="2"/><path d="M{guy} 166l22-36M{} 166l-22-36" stroke="{dark}" stroke-width="2"/>"##, 200 - guy)
        }
        Shape::SleepingBag => {
            let quilting: String = (0..5).map(|n| format!(r##"<path d="M{0} 78q6 24 0 54" fill="none" stroke="{dark}" stroke-width="2.5"/>"##, 72 + n * 18)).collect();
            format!(r##"<path d="M44 74h96q30 4 30 31t-30 31H44q-18-31 0-62z" fill="{body}"/><path d="M44 118h112q-4 16-20 18H44q-8-8-10-18z" fill="{dark}" opacity=".5"/>{quilting}
<ellipse cx="48" cy="105" rx="19" ry="32" fill="{light}"/><ellipse cx="48" cy="105" rx="11" ry="21" fill="{dark}"/><rect x="142" y="60" width="9" height="92" rx="4" fill="{accent}"/>"##)
        }
        Shape::Stove => {
            let flames: String = [76, 92, 108, 124].iter().map(|x| format!(r##"<path d="M{x} 98q-7-10 0-20 7 10 0 20z" fill="{accent}"/>"##)).collect();
            format!(r##"<path d="M62 50h76v26q0 10-12 10H74q-12 0-12-10z" fill="{body}"/><path d="M108 50h30v26q0 10-12 10h-18z" fill="{dark}"/><path d="M138 56h24" stroke="{dark}" stroke-width="7"/>
<ellipse cx="100" cy="50" rx="38" ry="7" fill="{light}"/>{flames}<rect x="60" y="98" width="80" height="8" rx="4" fill="{dark}"/>
<path d="M92 106h16v14H92z" fill="{dark}"/><path d="M72 128q0-10 10-10h36q10 0 10 10v36H72z" fill="{light}"/><path d="M72 138h56v14H72z" fill="{body}"/>"##)
        }
        Shape::Backpack => {
            let pocket = if variant == 0 { "M70 116h60v36q0 6-6 6H76q-6 0-6-6z" } else { "M64 122h72v30q0 6-6 6H70q-6 0-6-6z" };
            format!(r##"<path d="M82 48q0-18 18-18t18 18" fill="none" stroke="{dark}" stroke-width="7"/><path d="M56 164q-8 0-8-8V96q0-50 52-50t52 50v60q0 8-8 8z" fill="{body}"/>
<path d="M124 51q28 10 28 45v60q0 8-8 8h-20z" fill="{dark}" opacity=".55"/><path d="M52 90q4-44 48-44t48 44q-48 18-96 0z" fill="{light}"/>
<path d="{pocket}" fill="{accent}"/><path d="M76 132h48" stroke="#fff" stroke-width="3" opacity=".75"/><rect x="94" y="92" width="12" height="20" rx="4" fill="{dark}"/>"##)
        }
        Shape::Boot => {
            let laces: String = (0..4).map(|n| format!(r##"<path d="M88 {0}l20 4" stroke="#fff" stroke-width="3.5"/>"##, 66 + n * 13)).collect();
            format!(r##"<path d="M58 50h48l4 48q40 8 50 32 4 14-4 18H58z" fill="{body}"/><path d="M58 50h22v98H58z" fill="{dark}" opacity=".55"/><path d="M56 44h52q6 0 6 7t-6 7H56q-6 0-6-7t6-7z" fill="{light}"/>
<path d="M126 104q30 10 36 40h-24q0-26-12-40z" fill="{light}"/>{laces}<path d="M54 146h110v12q0 8-8 8h-8l-4-6h-14l-4 6H60q-6 0-6-8z" fill="{dark}"/><path d="M58 140h104" stroke="{accent}" stroke-width="6"/>"##)
        }
        Shape::Helmet => format!(r##"<path d="M34 126q0-72 68-72t66 66q0 8-10 8l-54 2q-20 14-60 10-10-2-10-14z" fill="{body}"/><path d="M34 126q0-8 1-16 60 10 133 4v6q0 8-10 8l-54 2q-20 14-60 10-10-2-10-14z" fill="{dark}"/>
<path d="M62 96q6-24 28-32l4 10q-16 6-18 24zM98 96q2-20 10-32l12 4q-8 10-8 28zM132 98q0-14 2-22 12 8 18 22z" fill="{light}"/>
<path d="M66 138q6 26 30 28 14-8 16-36" fill="none" stroke="{accent}" stroke-width="5"/><rect x="88" y="158" width="18" height="10" rx="4" fill="{dark}"/>"##),
        Shape::BikeLight => {
            let beams: String = [-26, -9, 9, 26].iter().map(|dy| format!(r##"<path d="M144 {}L186 {}" stroke="{accent}" stroke-width="5"/>"##, 96 + dy / 2, 96 + dy)).collect();
            format!(r##"<path d="M40 78h62l30-14v64l-30-14H40q-10 0-10-18t10-18z" fill="{body}"/><path d="M30 98h102v30l-30-14H40q-9 0-10-16z" fill="{dark}" opacity=".6"/><ellipse cx="132" cy="96" rx="9" ry="32" fill="{light}"/><ellipse cx="133" cy="96" rx="5" ry="20" fill="#fff"/>{beams}
<path d="M62 114h24v18H62z" fill="{dark}"/><path d="M46 132h56q8 0 8 8v8q0 8-8 8H46q-8 0-8-8v-8q0-8 8-8z" fill="{dark}"/><circle cx="60" cy="90" r="6" fill="{accent}"/>"##)
        }
        Shape::Pannier => format!(r##"<path d="M84 54q0-16 16-16t16 16" fill="none" stroke="{dark}" stroke-width="6"/><rect x="48" y="66" width="104" height="98" rx="14" fill="{body}"/><path d="M112 66h26q14 0 14 14v70q0 14-14 14h-26z" fill="{dark}" opacity=".5"/>
<path d="M42 60q0-8 8-8h100q8 0 8 8v20q0 10-10 10H52q-10 0-10-10z" fill="{light}"/><path d="M70 52v60M130 52v60" stroke="{dark}" stroke-width="7"/><rect x="63" y="104" width="14" height="16" rx="3" fill="{accent}"/><rect x="123" y="104" width="14" height="16" rx="3" fill="{accent}"/>
<path d="M84 136l16-14 16 14-16 14z" fill="#fff" opacity=".8"/>"##),
        Shape::Grinder => {
            let crank = if variant == 0 { "M100 40L146 34" } else { "M100 40L140 22" };
            let (kx, ky) = if variant == 0 { (150, 34) } else { (144, 20) };
            format!(r##"<path d="{crank}" stroke="{dark}" stroke-width="6"/><circle cx="{kx}" cy="{ky}" r="9" fill="{accent}"/><path d="M100 40v18" stroke="{dark}" stroke-width="7"/><path d="M72 58h56l-6 34H78z" fill="{light}"/><path d="M106 58h22l-6 34h-16z" fill="{body}" opacity=".6"/>
<rect x="70" y="92" width="60" height="72" rx="8" fill="{body}"/><path d="M106 92h16q8 0 8 8v56q0 8-8 8h-16z" fill="{dark}" opacity=".55"/><rect x="82" y="126" width="36" height="26" rx="4" fill="{light}"/><circle cx="100" cy="139" r="5" fill="{dark}"/><path d="M66 92h68" stroke="{dark}" stroke-width="6"/>"##)
        }
        Shape::Brewer => format!(r##"<path d="M58 46h84l-28 48h-28z" fill="{body}"/><path d="M112 46h30l-28 48h-8z" fill="{dark}" opacity=".6"/><path d="M54 46h92" stroke="{light}" stroke-width="8"/><rect x="72" y="92" width="56" height="8" rx="4" fill="{dark}"/>
<path d="M74 100h52l14 52q2 12-10 12H70q-12 0-10-12z" fill="#fff" opacity=".7"/><path d="M66 130h68l6 22q2 12-10 12H70q-12 0-10-12z" fill="{accent}"/><path d="M100 100v28" stroke="{accent}" stroke-width="4"/><path d="M136 112q24 0 22 20t-18 20" fill="none" stroke="{dark}" stroke-width="6"/>"##),
        Shape::Beans => {
            let label = ["M76 96h48v40H76z", "M100 88l26 26-26 26-26-26z", "M76 116a24 24 0 1 0 48 0a24 24 0 1 0-48 0z"][variant];
            format!(r##"<path d="M60 56h80l8 100q0 8-8 8H60q-8 0-8-8z" fill="{body}"/><path d="M114 56h26l8 100q0 8-8 8h-26z" fill="{dark}" opacity=".5"/><path d="M62 36h76v20H62z" fill="{light}"/><path d="M62 44h76" stroke="{dark}" stroke-width="3" stroke-dasharray="6 5"/><path d="{label}" fill="#fff" opacity=".9"/>
<ellipse cx="100" cy="116" rx="10" ry="15" fill="{accent}" transform="rotate(24 100 116)"/><path d="M106 103q-8 8-5 13t-6 13" fill="none" stroke="#fff" stroke-width="2.5"/>
<g fill="{dark}"><ellipse cx="40" cy="160" rx="9" ry="6"/><ellipse cx="164" cy="158" rx="9" ry="6" transform="rotate(-30 164 158)"/></g>"##)
        }
        Shape::Pan => format!(r##"<rect x="136" y="92" width="56" height="15" rx="7" fill="{dark}" transform="rotate(-24 136 100)"/><circle cx="84" cy="108" r="58" fill="{dark}"/><circle cx="84" cy="106" r="51" fill="{body}"/><circle cx="84" cy="106" r="42" fill="{dark}" opacity=".5"/>
<path d="M54 104q0-28 30-28" fill="none" stroke="{light}" stroke-width="5"/><path d="M62 112q2-16 20-14t26 2q12 8 2 20t-28 10-20-18z" fill="#fff"/><circle cx="86" cy="113" r="9" fill="{accent}"/>"##),
        Shape::Knife => {
            let rivets: String = [130, 144, 158].iter().map(|x| format!(r##"<circle cx="{x}" cy="98" r="3" fill="{light}"/>"##)).collect();
            let tip = if variant == 0 { "M116 84H34q-8 14 6 22 30 14 76 10z" } else { "M116 84L22 100q30 22 94 16z" };
            format!(r##"<rect x="28" y="128" width="144" height="34" rx="8" fill="{light}"/><path d="M28 146h144v8q0 8-8 8H36q-8 0-8-8z" fill="{body}"/><g transform="rotate(-14 100 100)"><path d="{tip}" fill="#f4f6f8"/><path d="M36 108q30 12 80 8v-6q-50 4-80-2z" fill="#b9c2cc"/><rect x="112" y="82" width="10" height="36" rx="3" fill="{accent}"/><path d="M120 88h48q8 0 8 9t-8 11h-48z" fill="{dark}"/>{rivets}</g>"##)
        }
        Shape::Lamp => match variant {
            0 => format!(r##"<path d="M70 160L58 104l44-46" fill="none" stroke="{dark}" stroke-width="7"/><circle cx="58" cy="104" r="8" fill="{accent}"/><path d="M86 58l30-24 44 40-62 12z" fill="{body}"/><path d="M116 34l44 40-28 6-32-34z" fill="{dark}" opacity=".5"/><path d="M98 86l62-12 22 82H88z" fill="#fff3c4" opacity=".75"/><ellipse cx="129" cy="80" rx="32" ry="6" fill="#ffe08a" transform="rotate(-11 129 80)"/><path d="M44 156h52q6 0 6 10H38q0-10 6-10z" fill="{dark}"/>"##),
            1 => format!(r##"<path d="M100 96v62" stroke="{dark}" stroke-width="8"/><path d="M48 98q4-54 52-54t52 54z" fill="{body}"/><path d="M112 46q36 8 40 52h-34z" fill="{dark}" opacity=".5"/><path d="M50 98h100l12 40H38z" fill="#fff3c4" opacity=".75"/><ellipse cx="100" cy="98" rx="52" ry="7" fill="#ffe08a"/><path d="M74 156h52q8 0 8 10H66q0-10 8-10z" fill="{accent}"/>"##),
            _ => format!(r##"<circle cx="100" cy="88" r="48" fill="#ffefb8"/><circle cx="100" cy="88" r="48" fill="none" stroke="{body}" stroke-width="6"/><path d="M60 62q40 18 80 0M53 88q47 20 94 0M60 114q40 16 80 0" fill="none" stroke="{light}" stroke-width="4"/><path d="M76 136h48l6 28H70z" fill="{body}"/><path d="M108 136h16l6 28h-18z" fill="{dark}"/><path d="M70 164h60" stroke="{accent}" stroke-width="5"/>"##),
        },
        Shape::Blanket => {
            let stripes: String = (0..4).map(|n| format!(r##"<path d="M44 {0}h112" stroke="{1}" stroke-width="{2}"/>"##, 84 + n * 19, if n % 2 == 0 { accent } else { light }, 4 + variant * 2)).collect();
            let fringe: String = (0..12).map(|n| format!(r##"<path d="M{0} 150v14" stroke="{body}" stroke-width="4"/>"##, 48 + n * 9)).collect();
            format!(r##"{fringe}<path d="M40 66q0-14 14-14h92q14 0 14 14v86H40z" fill="{body}"/>{stripes}<path d="M40 66q0-14 14-14h92q14 0 14 14 0 12-14 12H54q-14 0-14-12z" fill="{light}"/><path d="M128 78h32v74h-32z" fill="{dark}" opacity=".4"/><path d="M54 66h92" stroke="{dark}" stroke-width="3" opacity=".5"/>"##)
        }
        Shape::Plant => {
            let leaves = match variant {
                0 => r##"<path d="M100 116V60" stroke="#3f6b3c" stroke-width="4"/><path d="M100 76q-50-6-54-44 52 0 54 44z" fill="#4f9a5b"/><path d="M100 92q44-8 52-46-48 4-52 46z" fill="#3d7f4a"/><path d="M100 70q-14-30 6-52 20 24-6 52z" fill="#6bb874"/><path d="M100 110q-36 2-46-24 36-4 46 24z" fill="#3d7f4a"/>"##,
                1 => r##"<path d="M100 118q-22-44-14-96 20 40 14 96z" fill="#4f9a5b"/><path d="M100 118q24-40 20-88-24 34-20 88z" fill="#3d7f4a"/><path d="M100 118q-40-26-44-70 34 22 44 70z" fill="#6bb874"/><path d="M100 118q40-22 50-60-38 14-50 60z" fill="#57a263"/>"##,
                _ => r##"<path d="M100 118V52" stroke="#6b4a2e" stroke-width="6"/><circle cx="100" cy="48" r="28" fill="#4f9a5b"/><circle cx="74" cy="66" r="20" fill="#3d7f4a"/><circle cx="128" cy="66" r="21" fill="#6bb874"/><circle cx="100" cy="78" r="16" fill="#57a263"/>"##,
            };
            format!(r##"{leaves}<path d="M64 112h72l-8 46q-1 6-7 6H79q-6 0-7-6z" fill="{body}"/><path d="M110 112h26l-8 46q-1 6-7 6h-15z" fill="{dark}" opacity=".55"/><rect x="58" y="106" width="84" height="14" rx="6" fill="{light}"/>"##)
        }
        Shape::Pot => {
            let pattern = match variant {
                0 => format!(r##"<path d="M66 110l12-12 12 12 12-12 12 12 12-12 10 10" fill="none" stroke="{accent}" stroke-width="5"/>"##),
                1 => (0..5).map(|n| format!(r##"<circle cx="{}" cy="108" r="6" fill="{accent}"/>"##, 72 + n * 14)).collect(),
                _ => format!(r##"<path d="M60 98h80M62 112h76" stroke="{accent}" stroke-width="5"/>"##),
            };
            format!(r##"<path d="M54 72h92l-12 80q-1 8-9 8H75q-8 0-9-8z" fill="{body}"/><path d="M112 72h34l-12 80q-1 8-9 8h-20z" fill="{dark}" opacity=".5"/><rect x="46" y="58" width="108" height="20" rx="8" fill="{light}"/><ellipse cx="100" cy="60" rx="46" ry="6" fill="#4b3a2c"/>{pattern}<path d="M100 58V38M100 46q-14-2-16-14 16 0 16 14zM100 42q12-2 14-14-14 0-14 14z" fill="#4f9a5b" stroke="#4f9a5b" stroke-width="3"/><path d="M58 160h84q0 8-8 8H66q-8 0-8-8z" fill="{dark}"/>"##)
        }
        Shape::Notebook => {
            let mark = ["M82 82h48M82 96h34", "M84 78h44v30H84z", "M106 74l6 14 15 1-12 9 4 15-13-8-13 8 4-15-12-9 15-1z"][variant];
            format!(r##"<path d="M62 42h82q8 0 8 8v106q0 8-8 8H62z" fill="#fff"/><path d="M56 38h82q8 0 8 8v106q0 8-8 8H56q-6 0-6-6V44q0-6 6-6z" fill="{body}"/><path d="M50 44q0-6 6-6h10v122H56q-6 0-6-6z" fill="{dark}"/><path d="{mark}" fill="none" stroke="#fff" stroke-width="5" opacity=".9"/>
<path d="M130 38v122" stroke="{light}" stroke-width="6"/><path d="M110 160v16l7-6 7 6v-16z" fill="{accent}"/>"##)
        }
        Shape::Pen => format!(r##"<g transform="rotate(38 100 100)"><rect x="90" y="26" width="20" height="92" rx="5" fill="{body}"/><path d="M102 26h3q5 0 5 5v82q0 5-5 5h-3z" fill="{dark}"/><rect x="88" y="20" width="24" height="40" rx="7" fill="{light}"/><path d="M110 30h6v34q0 4-4 4" fill="none" stroke="{accent}" stroke-width="4"/><path d="M91 118h18l-5 22h-8z" fill="{accent}"/><path d="M96 140h8l-4 16z" fill="{dark}"/></g>
<path d="M40 160q14-16 24-4t22-2 20 2" fill="none" stroke="{body}" stroke-width="4"/>"##),
        Shape::Keyboard => {
            let keys: String = (0..4)
                .flat_map(|row| (0..9).map(move |column| (row, column)))
                .map(|(row, column)| {
                    let fill = if (row * 9 + column + variant * 4) % 11 == 3 { accent } else if row == 3 && (3..6).contains(&column) { light } else { "#fff" };
                    format!(r##"<rect x="{}" y="{}" width="12" height="12" rx="3" fill="{fill}"/>"##, 32 + column * 15, 76 + row * 16)
                })
                .collect();
            format!(r##"<rect x="22" y="66" width="156" height="86" rx="12" fill="{dark}"/><rect x="22" y="64" width="156" height="80" rx="12" fill="{body}"/>{keys}<path d="M100 64V48q0-10 12-10h20" fill="none" stroke="{dark}" stroke-width="4"/>"##)
        }
        Shape::Headphones => format!(r##"<path d="M46 112q0-68 54-68t54 68" fill="none" stroke="{dark}" stroke-width="12"/><path d="M50 100q2-50 50-50t50 50" fill="none" stroke="{light}" stroke-width="4"/><rect x="36" y="100" width="28" height="58" rx="13" fill="{body}"/><rect x="136" y="100" width="28" height="58" rx="13" fill="{body}"/>
<rect x="56" y="104" width="16" height="50" rx="8" fill="{accent}"/><rect x="128" y="104" width="16" height="50" rx="8" fill="{accent}"/><path d="M44 114v30M156 114v30" stroke="{light}" stroke-width="4"/>"##),
        Shape::Speaker => {
            let tweeter = if variant == 0 { 12 } else { 16 };
            format!(r##"<rect x="58" y="32" width="84" height="132" rx="10" fill="{body}"/><path d="M118 32h14q10 0 10 10v112q0 10-10 10h-14z" fill="{dark}" opacity=".5"/><circle cx="100" cy="66" r="{tweeter}" fill="{dark}"/><circle cx="100" cy="66" r="6" fill="{light}"/><circle cx="100" cy="120" r="32" fill="{dark}"/><circle cx="100" cy="120" r="24" fill="{light}"/><circle cx="100" cy="120" r="10" fill="{accent}"/>
<path d="M156 76q12 18 0 40M168 66q20 28 0 60" fill="none" stroke="{accent}" stroke-width="5"/>"##)
        }
        Shape::Turntable => format!(r##"<rect x="28" y="60" width="144" height="100" rx="12" fill="{body}"/><path d="M28 136h144v12q0 12-12 12H40q-12 0-12-12z" fill="{dark}"/><circle cx="88" cy="100" r="38" fill="#26262b"/><circle cx="88" cy="100" r="29" fill="none" stroke="#44444c" stroke-width="2"/><circle cx="88" cy="100" r="22" fill="none" stroke="#44444c" stroke-width="2"/><circle cx="88" cy="100" r="13" fill="{accent}"/><circle cx="88" cy="100" r="3" fill="#fff"/>
<circle cx="150" cy="76" r="8" fill="{light}"/><path d="M150 76l-6 40-24 8" fill="none" stroke="{light}" stroke-width="5"/><circle cx="152" cy="126" r="6" fill="{light}"/>"##),
        Shape::Game => {
            let squares: String = (0..16).filter(|n| (n / 4 + n % 4) % 2 == 0).map(|n| format!(r##"<rect x="{}" y="{}" width="24" height="24" fill="{light}"/>"##, 52 + n % 4 * 24, 66 + n / 4 * 24)).collect();
            format!(r##"<rect x="42" y="56" width="116" height="108" rx="10" fill="{dark}"/><rect x="52" y="66" width="96" height="96" fill="{body}"/>{squares}<path d="M82 96q0-14 13-14t13 14q0 8-6 11l8 27H80l8-27q-6-3-6-11z" fill="{accent}"/>
<rect x="116" y="40" width="36" height="36" rx="7" fill="#fff" transform="rotate(14 134 58)"/><g fill="{dark}"><circle cx="126" cy="48" r="4"/><circle cx="135" cy="58" r="4"/><circle cx="144" cy="68" r="4"/></g>"##)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    /// A malformed picture shows as a broken image, and only on the page.
    #[test]
    fn every_picture_is_well_formed_and_draws_the_same_again() {
        for (number, product) in Catalog::new(1).products.iter().enumerate() {
            let svg = picture(number, product.shape);
            assert_eq!(svg, picture(number, product.shape));
            let mut open = Vec::new();
            for tag in svg.split('<').skip(1) {
                let (tag, _text) = tag.split_once('>').expect("a tag ends");
                assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
                if let Some(name) = tag.strip_prefix('/') {
                    assert_eq!(open.pop(), Some(name));
                } else if !tag.ends_with('/') {
                    open.push(tag.split(' ').next().expect("a name"));
                }
            }
            assert!(open.is_empty());
        }
    }
}
