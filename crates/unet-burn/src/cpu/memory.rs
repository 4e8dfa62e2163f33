//! Memory of maps that are no longer needed, for the next ones.
//!
//! A map of a network is as large as those of the pass before, and fresh memory is slow: the system clears it page by page
//! when it is first touched, a tenth of the time of a pass. What is kept here and what is in use are together never more
//! than was in use at once at some time, each map counted with all of the memory that it lies in.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Smaller buffers are left to the allocator, which keeps them itself.
const SMALLEST: usize = 1 << 14;

#[derive(Default)]
struct Memory {
    /// Oldest first.
    kept: Vec<Vec<f32>>,
    /// Values in `kept`, in use, and in use at most so far.
    kept_values: usize,
    used: usize,
    peak: usize,
}

impl Memory {
    /// Values for a buffer: those of an old one if there is one that is at most 2.5 times as large. So passes of a U-Net
    /// take no fresh memory after the first, and a sixth more of it than they need at once; with closer fits the maps of
    /// one level drive out those of the next.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let fits = |buffer: &Vec<f32>| (length..=5 * length / 2).contains(&buffer.len());
        let found = (0..self.kept.len())
            .filter(|&index| fits(&self.kept[index]))
            .min_by_key(|&index| self.kept[index].len());
        let values = found.map(|index| self.kept.remove(index));
        self.kept_values -= values.as_ref().map_or(0, Vec::len);
        self.used += values.as_ref().map_or(length, Vec::len);
        self.peak = self.peak.max(self.used);
        while self.used + self.kept_values > self.peak && !self.kept.is_empty() {
            self.kept_values -= self.kept.remove(0).len();
        }
        values
    }

    fn give(&mut self, values: Vec<f32>) {
        self.used -= values.len();
        self.kept_values += values.len();
        self.kept.push(values);
    }
}

static MEMORY: LazyLock<Mutex<Memory>> = LazyLock::new(Mutex::default);

fn memory() -> MutexGuard<'static, Memory> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values of a map, given back when they are dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Never shorter than `length`, and longer where a larger map had them before.
    values: Vec<f32>,
    length: usize,
}

impl Buffer {
    /// Any values: they have to be written before they are read.
    pub(crate) fn any(length: usize) -> Self {
        if length < SMALLEST {
            return Self { values: vec![0.0; length], length };
        }
        let kept = memory().take(length);
        Self { values: kept.unwrap_or_else(|| vec![0.0; length]), length }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.length >= SMALLEST {
            memory().give(std::mem::take(&mut self.values));
        }
    }
}

/// The last field of what holds buffers for a run: when it is dropped, behind them, what is kept goes back to the system,
/// since the next run may not need it.
#[derive(Debug)]
pub(crate) struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        let mut memory = memory();
        memory.kept.clear();
        memory.kept_values = 0;
        memory.peak = memory.used;
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.length]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.length]
    }
}

/// The bytes of the values, as burn's tensors hold them.
impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_never_above_its_peak() {
        let mut memory = Memory::default();
        assert!(memory.take(1000).is_none() && memory.take(500).is_none(), "nothing is kept yet");
        memory.give(vec![7.0; 1000]);
        let again = memory.take(900).expect("the larger one serves");
        assert!(again.len() == 1000 && again[0] == 7.0, "as it was");
        assert!(memory.take(400).is_none(), "another is in use");
        memory.give(again);
        let again = memory.take(400).expect("2.5 times as large");
        memory.give(again);
        assert!(memory.take(399).is_none(), "more than that");
        memory.give(vec![0.0; 399]);
        memory.give(vec![0.0; 500]);
        assert!(memory.take(2000).is_none(), "too large for both");
        let Memory { kept_values, used, peak, .. } = memory;
        assert!(used + kept_values <= peak && peak == 2400, "{used} + {kept_values} of {peak}");
    }

    #[test]
    fn small_buffers_come_from_the_allocator() {
        assert_eq!(Buffer::any(10).len(), 10);
    }
}
