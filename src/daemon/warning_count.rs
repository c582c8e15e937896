//! Counts the warnings that are logged during a check, whoever logs them.

use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{Config, SharedLogger};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of warnings since it was made a logger. Its clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct WarningCount(Arc<AtomicUsize>);

impl WarningCount {
    /// The number by now.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Log for WarningCount {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() == Level::Warn && metadata.target().starts_with("rfw")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

impl SharedLogger for WarningCount {
    fn level(&self) -> LevelFilter {
        LevelFilter::Warn
    }

    fn config(&self) -> Option<&Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}
