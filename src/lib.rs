//! Runs stateful actors on machines you control.
