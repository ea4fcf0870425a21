//! A chart as SVG that stands in a page: it has a title and a description, and the style
//! sheet of the page chooses its colours for a dark screen.

use plotters::prelude::*;

use super::axis::Axis;

/// Text and axes.
pub const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
/// Lines behind the data.
pub const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
/// Passed at once, or after a delay.
pub const PASS: RGBColor = RGBColor(0x00, 0x9e, 0x73);
/// On a whitelist.
pub const WHITE: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
/// Greylisted.
pub const GREY: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
/// Held in the tarpit.
pub const HELD: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
/// Something else.
pub const OTHER: RGBColor = RGBColor(0x8c, 0x95, 0x9f);

/// What is drawn, in this order.
#[derive(Clone, Debug)]
pub enum Shape {
    /// What is below these points.
    Area(Vec<(f64, f64)>, RGBColor),
    /// From and to on the axis, its height.
    Bar(f64, f64, f64, RGBColor),
    /// A line through these points.
    Line(Vec<(f64, f64)>, RGBColor),
}

/// How large a chart is: one for wide screens and paper, one for narrow ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For wide screens and paper.
    Wide,
    /// For narrow screens.
    Narrow,
}

impl Size {
    /// Both.
    pub const ALL: [Size; 2] = [Size::Wide, Size::Narrow];

    /// Units of the drawing.
    fn extent(self) -> (u32, u32) {
        match self {
            Size::Wide => (760, 280),
            Size::Narrow => (340, 240),
        }
    }

    /// The class of the style sheet.
    fn class(self) -> &'static str {
        match self {
            Size::Wide => "wide",
            Size::Narrow => "narrow",
        }
    }
}

/// What a chart is called and says.
pub struct Caption<'c> {
    /// Unique in the page.
    pub id: &'c str,
    /// Its title.
    pub title: &'c str,
    /// What it shows, for whoever does not see it.
    pub description: &'c str,
}

/// Draws a chart.
pub fn svg(
    size: Size,
    caption: &Caption,
    [x, y]: [Axis; 2],
    shapes: &[Shape],
) -> Result<String, String> {
    let mut drawn = String::new();
    draw(&mut drawn, size, [x, y], shapes).map_err(|error| error.to_string())?;
    // The drawing begins with its own element, which knows nothing of the page.
    let start = drawn.find("<svg").ok_or("no drawing")?;
    let end = start + drawn[start..].find('>').ok_or("no drawing")? + 1;
    let (width, height) = size.extent();
    let (id, class) = (caption.id, size.class());
    let escaped = super::escape;
    Ok(format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-{class}-t {id}-{class}-d\">\n\
         <title id=\"{id}-{class}-t\">{}</title>\n<desc id=\"{id}-{class}-d\">{}</desc>{}",
        escaped(caption.title),
        escaped(caption.description),
        drawn[end..].replace(" opacity=\"1\"", "").trim_end()
    ))
}

fn draw(
    out: &mut String,
    size: Size,
    [x, y]: [Axis; 2],
    shapes: &[Shape],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(out, size.extent()).into_drawing_area();
    let letters = match size {
        Size::Wide => 13,
        Size::Narrow => 12,
    };
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(26)
        .y_label_area_size(44)
        .build_cartesian_2d(x, y)?;
    let label = ("sans-serif", letters).into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(label)
        .draw()?;
    for shape in shapes {
        match shape.clone() {
            Shape::Area(mut points, color) => {
                let (Some(first), Some(last)) = (points.first(), points.last()) else {
                    continue;
                };
                let base = [(last.0, 0.0), (first.0, 0.0)];
                points.extend(base);
                chart.draw_series([Polygon::new(points, color.filled())])?;
            }
            Shape::Bar(from, to, height, color) => {
                let corners = [(from, 0.0), (to, height)];
                chart.draw_series([Rectangle::new(corners, color.filled())])?;
            }
            Shape::Line(points, color) => {
                let style = color.stroke_width(3);
                chart.draw_series([PathElement::new(points, style)])?;
            }
        }
    }
    drop(chart);
    root.present()?;
    Ok(())
}
