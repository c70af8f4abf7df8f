//! Whether a pool makes a model's runs shorter.

use core::time::Duration;

/// Runs of each half of a trial, after which the other half begins; the half on one thread ends sooner if it has taken [`LONG`].
const TRIALS: u32 = 3;
const LONG: Duration = Duration::from_millis(5);

/// Whether runs that take `shared` are worth the other threads: by a sixteenth.
fn pays(shared: Duration, alone: Duration) -> bool {
    shared < alone - alone / 16
}

/// Doubts that lead to another trial.
const DOUBTS: u32 = 4;

/// Runs on one thread after the first trial that speaks for it, and after the last.
const SHORTEST_REST: u32 = 16;
const LONGEST_REST: u32 = 1024;

/// What has been learned about the runs of a model with a pool: where they take longer than on one thread (short loops, and
/// processors that are far apart or have other work) they go on with one, and try again from time to time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    state: State,
    /// The rest after the last trial, if that spoke for one thread.
    last_rest: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A trial: the least time of some shared runs, the first of which wakes the threads, against that of some on one thread.
    Shared {
        runs: u32,
        least: Duration,
    },
    Alone {
        runs: u32,
        least: Duration,
        spent: Duration,
        shared: Duration,
    },
    /// Shared runs, after a trial that spoke for them; `doubts` took longer than on one thread, lately.
    Steady {
        alone: Duration,
        doubts: u32,
    },
    /// So many runs on one thread until the next trial.
    Rest {
        runs: u32,
    },
}

impl Default for State {
    fn default() -> State {
        State::Shared { runs: 0, least: Duration::MAX }
    }
}

impl Pace {
    /// Whether the next run shares its loops.
    pub(crate) fn shares(&self) -> bool {
        matches!(self.state, State::Shared { .. } | State::Steady { .. })
    }

    /// Whether [`Pace::note`] wants to know the time of the next run.
    pub(crate) fn watches(&self) -> bool {
        !matches!(self.state, State::Rest { .. })
    }

    /// Notes how long a run took that went as [`Pace::shares`] says.
    pub(crate) fn note(&mut self, time: Duration) {
        self.state = match self.state {
            State::Rest { runs: 0 | 1 } => State::default(),
            State::Rest { runs } => State::Rest { runs: runs - 1 },
            State::Steady { alone, doubts } => {
                match if pays(time, alone) { doubts.saturating_sub(1) } else { doubts + 1 } {
                    DOUBTS => State::default(),
                    doubts => State::Steady { alone, doubts },
                }
            }
            State::Shared { runs, least } => match (runs + 1, least.min(time)) {
                (TRIALS, shared) => {
                    State::Alone { runs: 0, least: Duration::MAX, spent: Duration::ZERO, shared }
                }
                (runs, least) => State::Shared { runs, least },
            },
            State::Alone { runs, least, spent, shared } => {
                let (runs, least, spent) = (runs + 1, least.min(time), spent + time);
                if runs < TRIALS && spent < LONG {
                    State::Alone { runs, least, spent, shared }
                } else if pays(shared, least) {
                    self.last_rest = 0;
                    State::Steady { alone: least, doubts: 0 }
                } else {
                    self.last_rest = (2 * self.last_rest).clamp(SHORTEST_REST, LONGEST_REST);
                    State::Rest { runs: self.last_rest }
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` runs went on one thread.
    fn alone(pace: &mut Pace, shared_us: u64, alone_us: u64, count: usize) -> usize {
        let run = |_: &usize| {
            let shares = pace.shares();
            pace.note(Duration::from_micros(if shares { shared_us } else { alone_us }));
            !shares
        };
        (0..count).filter(run).count()
    }

    #[test]
    fn runs_go_the_faster_way() {
        let mut pace = Pace::default();
        assert_eq!(alone(&mut pace, 10, 20, 3), 0);
        assert_eq!(alone(&mut pace, 10, 20, 3), 3);
        assert_eq!(alone(&mut pace, 10, 20, 1000), 0);
        // The processors drift apart: four doubts, a trial, and then rests that grow.
        assert_eq!(alone(&mut pace, 30, 20, 4 + 3), 0);
        assert_eq!(alone(&mut pace, 30, 20, 3 + 16), 3 + 16);
        assert_eq!(alone(&mut pace, 30, 20, 10_000), 10_000 - 14 * 3);
        // They are near again.
        assert!(alone(&mut pace, 10, 20, 2000) <= 1024 + 3);
        assert_eq!(alone(&mut pace, 10, 20, 1000), 0);
    }

    #[test]
    fn one_long_run_on_one_thread_is_enough() {
        let mut pace = Pace::default();
        assert_eq!(alone(&mut pace, 3000, 6000, 100), 1);
    }

    #[test]
    fn a_hiccup_is_no_reason() {
        let mut pace = Pace::default();
        alone(&mut pace, 10, 20, 6);
        for _ in 0..100 {
            assert_eq!(alone(&mut pace, 500, 20, 3), 0);
            assert_eq!(alone(&mut pace, 10, 20, 3), 0);
        }
    }
}
