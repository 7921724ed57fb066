//! The comparison as one HTML page: no script, no external resources, light and dark.

use std::fmt::Write;

use crate::text::{events_sentence, percent, share};
use crate::{Comparison, Entry, Example, HISTOGRAM_DEPTH};

const STYLE: &str = include_str!("page.css");

/// Escapes text for HTML content and attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page.
pub fn html(comparison: &Comparison) -> String {
    let Comparison { names, as_of, lists, .. } = comparison;
    let (a, b) = (escaped(&names.a), escaped(&names.b));
    let mut page = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| page.write_fmt(text).expect("a string takes all");
    put(format_args!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\"><title>{a} and {b} compared</title><style>{STYLE}</style></head><body><main>\
         <h1><span class=\"a\">{a}</span> and <span class=\"b\">{b}</span> compared</h1>"
    ));
    let kind = if comparison.same_events() { "well" } else { "warn" };
    put(format_args!("<p class=\"note {kind}\">Computed from {}.</p>", escaped(&events_sentence(comparison))));

    put(format_args!("<section class=\"tiles\">"));
    let by_views = lists.moved_share_by_views.map_or_else(
        || "no views are known to weight them by".to_owned(),
        |moved| format!("{} weighted by what shoppers look at", percent(moved)),
    );
    put(format_args!("{}", tile(&percent(lists.moved_share), "of the lists changed", &by_views)));
    let at = |depth| lists.overlap.iter().find(|(d, _)| *d == depth).map_or(0.0, |(_, overlap)| *overlap);
    put(format_args!("{}", tile(&percent(at(10)), "of the first ten are in both", "mean over all lists (overlap@10)")));
    let ranks = "1 is the same order, the top counts most (rank-biased overlap)";
    put(format_args!("{}", tile(&format!("{:.2}", lists.rank_biased_overlap), "agreement of ranks", ranks)));
    let more = lists.with_list.b as i128 - lists.with_list.a as i128;
    let with_list = format!("{} in {}, {} in {}", lists.with_list.a, a, lists.with_list.b, b);
    put(format_args!("{}", tile(&format!("{more:+}"), "items with a list", &with_list)));
    put(format_args!("</section>"));

    put(format_args!("<h2>What was set differently</h2>"));
    if comparison.settings.is_empty() {
        put(format_args!("<p>Nothing: both have the same settings.</p>"));
    } else {
        put(format_args!("<table><thead><tr><th>setting<th class=\"a\">{a}<th class=\"b\">{b}</thead><tbody>"));
        for change in &comparison.settings {
            let (name, of_a, of_b) = (escaped(&change.name), escaped(&change.a), escaped(&change.b));
            put(format_args!("<tr><td><code>{name}</code><td><code>{of_a}</code><td><code>{of_b}</code>"));
        }
        put(format_args!("</tbody></table>"));
    }

    put(format_args!(
        "<h2>How much the lists moved</h2><div class=\"plots\"><figure>{}<figcaption>Lists by how many of their \
         first ten are in both. To the right: the same items.</figcaption></figure>",
        histogram(&lists.histogram)
    ));
    put(format_args!(
        "<figure>{}<figcaption>Mean share that both have, of the first 5, 10, 20 and 50.</figcaption></figure></div>",
        depths(&lists.overlap)
    ));

    put(format_args!("<h2>Figures</h2><table><thead><tr><th>figure<th class=\"a\">{a}<th class=\"b\">{b}</thead><tbody>"));
    put(format_args!(
        "<tr><td>as of (position in the log)<td><code>{}</code><td><code>{}</code>",
        escaped(&as_of.a),
        escaped(&as_of.b)
    ));
    put(format_args!("<tr><td>items with a list<td>{}<td>{}", lists.with_list.a, lists.with_list.b));
    let covered = |covered, of| if of == 0 { "no catalog".to_owned() } else { share(covered, of) };
    put(format_args!(
        "<tr><td>items of the catalog that stand in a list<td>{}<td>{}",
        covered(lists.covered.a, lists.catalog.a),
        covered(lists.covered.b, lists.catalog.b)
    ));
    for (what, a, b) in comparison.summed() {
        put(format_args!("<tr><td>{what}, on {}<td>{a}<td>{b}", comparison.day));
    }
    for table in &comparison.inputs {
        let equal = if table.equal { "the same" } else { "different" };
        put(format_args!("<tr><td>rows of <code>{}</code> ({equal})<td>{}<td>{}", table.table, table.rows_a, table.rows_b));
    }
    for table in &comparison.tables {
        put(format_args!(
            "<tr><td>rows of <code>{}</code> ({} different)<td>{}<td>{}",
            table.table, table.different, table.rows_a, table.rows_b
        ));
    }
    put(format_args!("</tbody></table>"));

    if !comparison.examples.is_empty() {
        put(format_args!(
            "<h2>The lists that moved most</h2><p>Of what shoppers see most, the {} whose order agrees least. “12 of 340”: 12 baskets \
             hold both, of the 340 that hold the neighbour. An arrow is a rank in the other list, “new” and “gone” stand in one \
             list alone.</p>",
            comparison.examples.len()
        ));
    }
    for example in &comparison.examples {
        put(format_args!("{}", shown_example(example, &a, &b)));
    }
    put(format_args!("</main></body></html>\n"));
    page
}

fn tile(figure: &str, what: &str, detail: &str) -> String {
    format!("<div class=\"tile\"><b>{figure}</b><span>{what}</span><small>{detail}</small></div>")
}

/// A bar chart with a value above and a name below each bar, scaled to `most`.
fn bars(values: &[(String, f64, String)], most: f64, title: &str) -> String {
    let (width, height_all, above, below) = (440.0, 200.0, 22.0, 24.0);
    let step = width / values.len().max(1) as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height_all}\" role=\"img\" aria-label=\"{title}\">");
    let floor = height_all - below;
    for (n, (name, value, shown)) in values.iter().enumerate() {
        let height = (floor - above) * value / most;
        let (left, top, middle) = (step * n as f64 + 3.0, floor - height, step * (n as f64 + 0.5));
        let _ = write!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"2\"/><text x=\"{middle:.1}\" y=\"{:.1}\" \
             class=\"count\">{shown}</text><text x=\"{middle:.1}\" y=\"{:.1}\">{name}</text>",
            step - 6.0,
            top - 6.0,
            height_all - 6.0
        );
    }
    let _ = write!(svg, "<line x1=\"0\" y1=\"{floor}\" x2=\"{width}\" y2=\"{floor}\"/></svg>");
    svg
}

fn histogram(counts: &[u64]) -> String {
    let name = |n: usize| if n == HISTOGRAM_DEPTH { "all".to_owned() } else { format!("{} %", n * 10) };
    let values: Vec<_> = counts.iter().enumerate().map(|(n, count)| (name(n), *count as f64, count.to_string())).collect();
    let most = counts.iter().max().map_or(1.0, |most| (*most).max(1) as f64);
    bars(&values, most, "lists by the share of their first ten that both have")
}

fn depths(overlap: &[(usize, f64)]) -> String {
    let values: Vec<_> = overlap.iter().map(|(depth, mean)| (format!("first {depth}"), *mean, percent(*mean))).collect();
    bars(&values, 1.0, "mean overlap by depth")
}

fn shown_example(example: &Example, a: &str, b: &str) -> String {
    let views = example.views.map(|views| format!("{views} views, ")).unwrap_or_default();
    let heading = format!(
        "<h3>{} <small>{}{} baskets in {a}, {} in {b}; agreement of ranks {:.2}</small></h3>",
        name(example.title.as_deref(), &example.item),
        views,
        example.support.a,
        example.support.b,
        example.rank_biased_overlap
    );
    let list = |entries: &[Entry], class: &str, name: &str, alone: &str| {
        let rows: String = entries.iter().enumerate().map(|(n, entry)| shown_entry(n + 1, entry, alone)).collect();
        let rows = if rows.is_empty() { "<p class=\"none\">no list</p>".to_owned() } else { format!("<ol>{rows}</ol>") };
        format!("<div><h4 class=\"{class}\">{name}</h4>{rows}</div>")
    };
    let (left, right) = (list(&example.a, "a", a, "gone"), list(&example.b, "b", b, "new"));
    format!("<article>{heading}<div class=\"sides\">{left}{right}</div></article>")
}

fn shown_entry(rank: usize, entry: &Entry, alone: &str) -> String {
    let moved = match entry.other_rank {
        None => format!("<i class=\"{alone}\">{alone}</i>"),
        Some(other) if other == rank => String::new(),
        Some(other) => format!("<i>→ {other}</i>"),
    };
    format!(
        "<li>{} <small title=\"score {}\">{} of {}</small> {moved}</li>",
        name(entry.title.as_deref(), &entry.item),
        entry.score,
        entry.co_count,
        entry.support
    )
}

/// The title with the item as its tooltip; without a title the item.
fn name(title: Option<&str>, item: &str) -> String {
    let item = escaped(item);
    title.map_or_else(|| format!("<code>{item}</code>"), |title| format!("<span title=\"{item}\">{}</span>", escaped(title)))
}
