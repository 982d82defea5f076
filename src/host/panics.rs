//! Panics of actor code and host code, turned into text at the boundary.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs a future to its end or to its panic; the error is what the panic said.
///
/// What the future owned was dropped by the unwinding and what it borrowed is only ever behind `&`, so nothing half
/// changed can be seen but through the author's own interior mutability, as with any other panic in a task.
///
/// Not an `async fn`: that would keep room for the future twice, as an argument and as what is waited for.
pub(super) fn caught<T>(future: impl Future<Output = T>) -> impl Future<Output = Result<T, String>> {
    AssertUnwindSafe(future).catch_unwind().map(|done| done.map_err(|panic| text(panic.as_ref())))
}

fn text(panic: &(dyn Any + Send)) -> String {
    match panic.downcast_ref::<&str>() {
        Some(text) => format!("panicked: {text}"),
        None => match panic.downcast_ref::<String>() {
            Some(text) => format!("panicked: {text}"),
            None => "panicked".to_owned(),
        },
    }
}
