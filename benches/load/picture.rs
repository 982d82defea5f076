//! The growth of costs as a picture: a panel for each axis, both scales logarithmic.

use std::fmt::Write;

use crate::figures::{Figures, Part, Quantity, Side};
use crate::growth::{AXES, Axis};

/// An SVG of all axes.
pub fn draw(figures: &Figures) -> String {
    let (width, height) = (PANEL * AXES.len() as f64 + MARGIN, HEIGHT + 3.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"14\">processor time of the runner for each message, µs</text>\n"
    );
    for (panel, axis) in AXES.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(svg, "{}", Panel { left: MARGIN + PANEL * panel as f64, axis, figures });
    }
    svg.push_str("</svg>\n");
    svg
}

struct Panel<'a> {
    left: f64,
    axis: &'a Axis,
    figures: &'a Figures,
}

impl Panel<'_> {
    fn x(&self, place: usize) -> f64 {
        self.left + 20.0 + place as f64 * (PANEL - MARGIN - 40.0) / (self.axis.numbers.len() - 1) as f64
    }

    fn points(&self, side: Side) -> Vec<(f64, f64, f64)> {
        let numbers = self.axis.numbers.iter().enumerate();
        numbers
            .filter_map(|(place, number)| {
                let row = self.figures.row(Part::Growth, &self.axis.row(*number), Quantity::Cpu)?;
                let value = row.median(side)?;
                Some((self.x(place), y(value), value))
            })
            .collect()
    }
}

impl std::fmt::Display for Panel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let right = self.left + PANEL - MARGIN;
        for value in SCALE {
            let y = y(value);
            writeln!(f, "<line x1=\"{}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\" stroke=\"#ddd\"/>", self.left)?;
            writeln!(
                f,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#666\">{value}</text>",
                self.left - 4.0,
                y + 4.0
            )?;
        }
        let bottom = y(SCALE[0]) + 16.0;
        for (place, number) in self.axis.numbers.iter().enumerate() {
            writeln!(f, "<text x=\"{}\" y=\"{bottom}\" text-anchor=\"middle\">{number}</text>", self.x(place))?;
        }
        let middle = (self.left + right) / 2.0;
        writeln!(f, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 18.0, self.axis.name)?;
        for (side, colour) in [(Side::Ours, "#0a7d4f"), (Side::TypeScript, "#b5521b")] {
            let points = self.points(side);
            let line: String = points.iter().map(|(x, y, _)| format!("{x:.0},{y:.0} ")).collect();
            writeln!(f, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>")?;
            for (x, y, value) in &points {
                writeln!(f, "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"3\" fill=\"{colour}\"/>")?;
                let text = if *value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
                let above = y - 8.0;
                writeln!(
                    f,
                    "<text x=\"{x:.0}\" y=\"{above:.0}\" text-anchor=\"middle\" fill=\"{colour}\">{text}</text>"
                )?;
            }
            if let Some((x, y, _)) = points.first() {
                let name = side.name();
                writeln!(f, "<text x=\"{x:.0}\" y=\"{:.0}\" fill=\"{colour}\">{name}</text>", y + 18.0)?;
            }
        }
        Ok(())
    }
}

fn y(value: f64) -> f64 {
    let (least, most) = (SCALE[0].log10(), SCALE[SCALE.len() - 1].log10());
    let part = ((value.log10() - least) / (most - least)).clamp(0.0, 1.0);
    ((1.0 - part) * HEIGHT + MARGIN).round()
}

const PANEL: f64 = 300.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 40.0;
/// Microseconds.
const SCALE: [f64; 5] = [0.1, 1.0, 10.0, 100.0, 1000.0];
