//! Pages of lists.

use serde::Serialize;

use super::query::Parameters;
use crate::gateway::refusal::Refusal;

/// Where the next page begins.
#[derive(Debug, Serialize)]
pub(super) struct Pagination {
    /// To be given as `cursor`; none after an empty page.
    pub cursor: Option<String>,
}

/// Which page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// How many entries at most.
    pub limit: usize,
    /// Only what was created before this time, in milliseconds.
    pub before: Option<i64>,
}

impl Page {
    /// How many entries come when nobody says how many.
    pub(super) const LIMIT: usize = 100;

    /// The most entries of a page.
    pub(super) const LIMIT_MAX: usize = 10_000;

    /// The page of a list in order of creation.
    ///
    /// # Errors
    /// A limit or a cursor that is no number.
    pub(super) fn of(parameters: &Parameters) -> Result<Page, Refusal> {
        Ok(Page { limit: limit(parameters)?, before: parameters.number("cursor")? })
    }
}

impl Pagination {
    /// The page after one that ends with this creation time.
    pub(super) fn after(create_ts: Option<i64>) -> Self {
        Pagination { cursor: create_ts.map(|time| time.to_string()) }
    }
}

/// How many entries are asked for.
///
/// # Errors
/// It is no number.
pub(super) fn limit(parameters: &Parameters) -> Result<usize, Refusal> {
    Ok(parameters.number("limit")?.unwrap_or(Page::LIMIT).min(Page::LIMIT_MAX))
}
