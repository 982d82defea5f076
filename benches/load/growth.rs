//! What a message costs as actors, open requests and sockets become ten and a hundred times as many.

use crate::app::App;
use crate::figures::{Figures, Part, Quantity, Side};
use crate::load::Load;

/// One way to grow.
pub struct Axis {
    pub name: &'static str,
    load: fn(usize) -> Load,
    pub numbers: [usize; 3],
    /// The largest number that the TypeScript runner takes within the time there is.
    typescript_most: usize,
}

/// All of them, in the order of the picture.
pub const AXES: &[Axis] = &[
    Axis {
        name: "actors",
        load: |actors| Load::Requests { open: 64, actors },
        numbers: [100, 1_000, 10_000],
        typescript_most: 1_000,
    },
    Axis {
        name: "open requests",
        load: |open| Load::Requests { open, actors: 1 },
        numbers: [64, 640, 6_400],
        typescript_most: 6_400,
    },
    Axis {
        name: "sockets",
        load: |sockets| Load::Sockets { sockets, on_their_way: 64 },
        numbers: [100, 1_000, 10_000],
        typescript_most: 1_000,
    },
];

impl Axis {
    /// What the row of this number is called.
    pub fn row(&self, number: usize) -> String {
        format!("{}, {number}", self.name)
    }

    /// One round at every number.
    pub fn measure(&self, app: &mut App, seconds: f64, figures: &mut Figures) {
        let mut smallest = None;
        for number in self.numbers {
            if app.side == Side::TypeScript && number > self.typescript_most {
                continue;
            }
            let values = (self.load)(number).run(app, seconds);
            let Some((_, _, cpu)) = values.iter().find(|(quantity, ..)| *quantity == Quantity::Cpu) else { continue };
            let row = self.row(number);
            eprintln!("{row:<40} {:<18} {cpu:.2} µs", app.side.name());
            figures.add(Part::Growth, &row, Quantity::Cpu, app.side, *cpu);
            if app.side == Side::Ours {
                figures.add(Part::Growth, &row, Quantity::Cpu, Side::Smallest, *smallest.get_or_insert(*cpu));
            }
        }
    }
}
