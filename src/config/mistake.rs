//! What is wrong with the settings, all of it.

use std::fmt;

/// One wrong setting: where it stands, what was expected there and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    place: String,
    says: String,
}

/// Every wrong setting of one run, in the order they were found; each is told once.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    all: Vec<Mistake>,
}

impl Mistake {
    /// A mistake at a flag, a variable or a `file:line: key`.
    pub fn new(place: impl Into<String>, says: impl Into<String>) -> Self {
        Mistake { place: place.into(), says: says.into() }
    }
}

impl Mistakes {
    /// Notes a mistake, unless it is noted already.
    pub fn push(&mut self, mistake: Mistake) {
        if !self.all.contains(&mistake) {
            self.all.push(mistake);
        }
    }

    /// No mistake was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many were found.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The mistakes in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.all.iter()
    }

    /// The value, when nothing was wrong on the way to it.
    ///
    /// # Errors
    /// The mistakes, when there are any.
    pub fn unless_any<T>(self, value: T) -> Result<T, Mistakes> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.says)
    }
}

impl fmt::Display for Mistakes {
    /// One mistake per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.all.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{mistake}")?;
        }
        Ok(())
    }
}
