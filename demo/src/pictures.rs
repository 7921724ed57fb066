//! Product pictures: flat illustrations, one drawing a shelf, varied by palette, backdrop, side and detail.
//!
//! Generated on request from the product's index by `data/picture.svg.jinja`: no network, deterministic.

use std::sync::LazyLock;

use minijinja::{Environment, context};

use crate::random::Random;

/// Palettes of the template.
const PALETTES: usize = 10;

static TEMPLATE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.add_template("picture", include_str!("../data/picture.svg.jinja")).expect("a valid template");
    environment
});

/// The picture of a product as SVG, 400 by 400. `shape` names the drawing.
pub fn picture(number: usize, shape: &str) -> String {
    let mut random = Random::new(number as u64, "picture");
    // Neighbours on a shelf never share a palette.
    let palette = (number * 7 + number / 10 * 3) % PALETTES;
    let (variant, x, y) = (random.index(3), random.between(55, 145), random.between(60, 110));
    let (backdrop, flip) = (random.index(4), random.chance(0.5));
    let template = TEMPLATE.get_template("picture").expect("it was added");
    template.render(context! { shape, palette, variant, x, y, backdrop, flip }).expect("all its names are given")
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
