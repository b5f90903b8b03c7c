//! How work is shared out over threads: one pool, which candle's matrix products use as well.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::memory::{Shared, filled};

/// Looks for the next operation between two looks for candle's work.
const LOOKS: usize = 32;
/// So many of these rounds without work, some tens of microseconds, pass before others may have the
/// processor: within a pass the next operation comes sooner.
const PATIENCE: usize = 256;

/// Calls for a crew that threads have not heard yet, and how many may wait: a thread that is busy with
/// a long job hears none.
static CALLS: AtomicUsize = AtomicUsize::new(0);
const CALLS_PER_THREAD: usize = 4;

/// Groups of small items for each thread: they even out its times.
const GROUPS_PER_THREAD: usize = 8;

thread_local! {
    /// The crew of the pass that runs on this thread.
    static CREW: RefCell<Option<Arc<Crew>>> = const { RefCell::new(None) };
    /// Whether this thread runs a pass or attends one.
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, a pass through a net, on the threads of rayon's global pool, all of which stay awake until it ends.
///
/// Outside of it, each parallel operation hands its work over to threads that may sleep, and waking one
/// takes longer than one of a net's hundred short operations. In it, the other threads wait for the
/// next operation all the time, each takes the same share of every operation, and so finds its part of
/// the map in its own cache. A pass on n threads has n busy processors; of passes at the same time, each
/// has the threads that no other has.
pub fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// Lets the threads go again, also after a panic.
    struct Over {
        crew: Arc<Crew>,
        was_taken: bool,
    }
    impl Drop for Over {
        fn drop(&mut self) {
            CREW.with_borrow_mut(Option::take);
            TAKEN.set(self.was_taken);
            self.crew.over.store(true, Ordering::Release);
        }
    }
    rayon::scope(|_| {
        let threads = rayon::current_num_threads();
        let Some(leader) = rayon::current_thread_index().filter(|_| threads > 1) else { return work() };
        if CREW.with_borrow(Option::is_some) || CALLS.load(Ordering::Relaxed) > CALLS_PER_THREAD * threads {
            return work();
        }
        let crew = Arc::new(Crew::new(threads, leader));
        let over = Over { crew: crew.clone(), was_taken: TAKEN.replace(true) };
        CREW.set(Some(over.crew.clone()));
        CALLS.fetch_add(threads, Ordering::Relaxed);
        rayon::spawn_broadcast(move |thread| {
            CALLS.fetch_sub(1, Ordering::Relaxed);
            // A thread that waits for a part of its own pass, or of another's, hears the call as well.
            if !TAKEN.replace(true) {
                crew.attend(thread.index());
                TAKEN.set(false);
            }
        });
        work()
    })
}

/// Runs `work` for each of `0..tasks`, shared out over threads.
pub(crate) fn share(tasks: usize, work: impl Fn(usize) + Sync) {
    share_with(tasks, || (), |(), task| work(task));
}

/// The same with a state for each thread, made by `init`, that its tasks use one after the other.
pub(crate) fn share_with<T>(tasks: usize, init: impl Fn() -> T + Sync, work: impl Fn(&mut T, usize) + Sync) {
    let all = |tasks: &mut dyn Iterator<Item = usize>| {
        let mut state = init();
        tasks.for_each(|task| work(&mut state, task));
    };
    // Without its crew while it runs: an operation within an operation is this thread's own affair.
    match (tasks, CREW.take()) {
        (tasks, crew) if tasks < 2 || threads() == 1 => {
            all(&mut (0..tasks));
            CREW.set(crew);
        }
        (_, Some(crew)) => {
            let result = crew.run(tasks, &all);
            CREW.set(Some(crew));
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        }
        (_, None) => {
            let operation = Operation::new(&all, tasks, threads());
            (0..threads()).into_par_iter().with_max_len(1).for_each(|thread| {
                operation.work(thread);
            });
            if let Err(panic) = operation.end() {
                resume_unwind(panic);
            }
        }
    }
}

/// The threads that share work.
pub(crate) fn threads() -> usize {
    rayon::current_num_threads()
}

/// How many of `items` that cost `each` operations make a task: enough to be worth one.
pub(crate) fn items_per_task(items: usize, each: usize) -> usize {
    const TASK: usize = 1 << 16;
    let least = TASK.div_ceil(each.max(1));
    items.div_ceil(4 * threads()).max(least).max(1)
}

/// How many tasks `work` is cut into, of which `worth` makes one: no more than `per_thread` for each
/// thread, and one where there is one thread.
pub(crate) fn tasks_for(work: usize, worth: usize, per_thread: usize) -> usize {
    let threads = threads();
    (work / worth).clamp(1, if threads == 1 { 1 } else { per_thread * threads })
}

/// [`share`] of items that are too small to be tasks, at least `least` of them at a time.
pub(crate) fn share_groups(items: usize, least: usize, work: impl Fn(usize) + Sync) {
    let group = items.div_ceil(GROUPS_PER_THREAD * threads()).max(least).max(1);
    share(items.div_ceil(group), |i| (i * group..items.min((i + 1) * group)).for_each(&work));
}

/// What `work` gives for each of `0..tasks`, in order, shared out over threads.
pub(crate) fn gather<R: Send>(tasks: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    // SAFETY: there is a task for each value, and no other has its place.
    unsafe { filled(tasks, |out: Shared<R>| share(tasks, |task| out.at(task).write(work(task)))) }
}

/// Runs `work(i, chunk)` for chunks of `len` values, of which the last may be shorter.
pub(crate) fn share_chunks<T: Send>(values: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    gather_chunks(values, len, work);
}

/// The same, with what `work` gives for each chunk, in order.
pub(crate) fn gather_chunks<T: Send, R: Send>(
    values: &mut [T],
    len: usize,
    work: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let (len, all, start) = (len.max(1), values.len(), Shared(values.as_mut_ptr()));
    gather(all.div_ceil(len), |task| {
        let from = task * len;
        // SAFETY: the chunk lies inside `values`, which are borrowed until all tasks are done, and no
        // other task has this one's number.
        work(task, unsafe { std::slice::from_raw_parts_mut(start.at(from), len.min(all - from)) })
    })
}

/// The threads that attend a pass, and the operation that is under way.
struct Crew {
    /// Of the pool, and the one among them that runs the pass.
    threads: usize,
    leader: usize,
    /// The operation, while it has work.
    operation: AtomicPtr<Operation<'static>>,
    /// Threads that may be looking at the operation.
    inside: AtomicUsize,
    over: AtomicBool,
}

/// What a thread does with its tasks.
type Work<'a> = &'a (dyn Fn(&mut dyn Iterator<Item = usize>) + Sync);
type Panic = Box<dyn Any + Send>;

struct Operation<'a> {
    work: Work<'a>,
    /// Each thread's share, first task and end, of which it takes from the front and others from the back.
    shares: Vec<AtomicU64>,
    panic: Mutex<Option<Panic>>,
}

impl Crew {
    fn new(threads: usize, leader: usize) -> Self {
        Self {
            threads,
            leader,
            operation: AtomicPtr::new(ptr::null_mut()),
            inside: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Takes part in each operation until the pass is over.
    fn attend(&self, thread: usize) {
        let mut idle = 0;
        while !self.over.load(Ordering::Acquire) {
            if (0..LOOKS).any(|_| self.help(thread)) || rayon::yield_now() == Some(rayon::Yield::Executed) {
                idle = 0;
            } else if idle < PATIENCE {
                idle += 1;
            } else {
                // Whoever else wants the processor goes first.
                std::thread::yield_now();
            }
        }
    }

    /// Takes part in the operation under way, if there is one.
    fn help(&self, thread: usize) -> bool {
        if self.operation.load(Ordering::Relaxed).is_null() {
            std::hint::spin_loop();
            return false;
        }
        // Whoever ends the operation first takes its pointer away and then waits until nobody is inside.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let operation = self.operation.load(Ordering::SeqCst);
        // SAFETY: the pointer was there when this thread was inside already, so that the operation
        // stays until it has left.
        let helped = unsafe { operation.as_ref() }.is_some_and(|operation| operation.work(thread));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        helped
    }

    /// Runs an operation on this thread and all that attend.
    fn run(&self, tasks: usize, work: Work) -> Result<(), Panic> {
        let operation = Operation::new(work, tasks, self.threads);
        let pointer = ptr::from_ref(&operation).cast::<Operation<'static>>().cast_mut();
        self.operation.store(pointer, Ordering::SeqCst);
        operation.work(self.leader);
        // No task is left; those that others have begun end before the operation does.
        self.operation.store(ptr::null_mut(), Ordering::SeqCst);
        while self.inside.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
        operation.end()
    }
}

fn share_of(first: usize, end: usize) -> AtomicU64 {
    AtomicU64::new((first as u64) << 32 | end as u64)
}

impl<'a> Operation<'a> {
    /// Equal shares for all threads.
    fn new(work: Work<'a>, tasks: usize, threads: usize) -> Self {
        let shares = (0..threads).map(|i| share_of(i * tasks / threads, (i + 1) * tasks / threads));
        Self { work, shares: shares.collect(), panic: Mutex::new(None) }
    }

    /// Whether all went well, when nobody works on it any more.
    fn end(self) -> Result<(), Panic> {
        self.panic.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Does what is left of a thread's share, then of the others'; tells whether that was anything.
    fn work(&self, thread: usize) -> bool {
        let threads = self.shares.len();
        let mut any = false;
        let mut tasks = (0..threads)
            .flat_map(|i| {
                let owner = (thread + i) % threads;
                std::iter::from_fn(move || self.take(owner, i == 0))
            })
            .inspect(|_| any = true)
            .peekable();
        // A thread that comes too late makes no state.
        if tasks.peek().is_some()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(&mut tasks)))
        {
            // What this thread would have done is left to nobody.
            tasks.for_each(drop);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        any
    }

    /// The next task of a share.
    fn take(&self, owner: usize, from_front: bool) -> Option<usize> {
        let mut taken = None;
        let next = |share: u64| {
            let (first, end) = ((share >> 32) as usize, (share & 0xffff_ffff) as usize);
            let after;
            (taken, after) = match from_front {
                _ if first >= end => (None, None),
                true => (Some(first), Some(share + (1 << 32))),
                false => (Some(end - 1), Some(share - 1)),
            };
            after
        };
        let _ = self.shares[owner].fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_at_once_and_within_each_other_end_and_let_threads_sleep() {
        let passes = 8;
        let total: usize = std::thread::scope(|scope| {
            let running: Vec<_> = (0..passes)
                .map(|i| scope.spawn(move || (0..50).map(|_| on_pool(|| on_pool(|| i))).sum::<usize>()))
                .collect();
            running.into_iter().map(|pass| pass.join().unwrap_or(0)).sum()
        });
        assert_eq!(total, 50 * passes * (passes - 1) / 2);
        // A thread that still attended would say so.
        for _ in 0..10_000 {
            if rayon::broadcast(|_| TAKEN.get()).into_iter().all(|taken| !taken) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("threads are still kept awake");
    }

    /// How often each task ran.
    fn counts(tasks: usize, share: impl Fn(&(dyn Fn(usize) + Sync))) -> Vec<usize> {
        let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        share(&|task| {
            counts[task].fetch_add(1, Ordering::Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn each_task_runs_once_in_a_pass_and_outside_of_one_and_within_another_task() {
        for tasks in [0, 1, 2, 3, 7, 64, 1000] {
            let once = vec![1; tasks];
            assert_eq!(counts(tasks, |count| share(tasks, count)), once);
            for _ in 0..100 {
                assert_eq!(counts(tasks, |count| on_pool(|| share(tasks, count))), once);
            }
            let squared = on_pool(|| counts(tasks, |count| share(tasks, |_| share(tasks, count))));
            assert_eq!(squared, vec![tasks; tasks]);
            for least in [0, 1, 5, 2000] {
                assert_eq!(counts(tasks, |count| on_pool(|| share_groups(tasks, least, count))), once);
            }
        }
    }

    #[test]
    fn chunks_cover_all_values_once() {
        for (len, chunk) in [(0, 3), (1, 3), (3, 3), (10, 3), (1000, 7), (5, 0)] {
            let mut values = vec![0; len];
            on_pool(|| {
                share_chunks(&mut values, chunk, |i, values| {
                    for (k, value) in values.iter_mut().enumerate() {
                        *value += i * chunk.max(1) + k + 1;
                    }
                })
            });
            assert_eq!(values, (1..=len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_in_a_task_ends_the_pass_and_not_the_next_one() {
        for bad in 0..16 {
            let pass = || on_pool(|| share(16, |task| assert_ne!(task, bad, "as asked")));
            assert!(catch_unwind(AssertUnwindSafe(pass)).is_err());
            assert_eq!(counts(16, |count| on_pool(|| share(16, count))), [1; 16]);
        }
    }

    #[test]
    fn a_state_serves_one_thread() {
        let made = AtomicUsize::new(0);
        let make = || {
            made.fetch_add(1, Ordering::Relaxed);
            0
        };
        let total = AtomicUsize::new(0);
        on_pool(|| {
            share_with(100, make, |state: &mut usize, _| {
                *state += 1;
                total.fetch_add(*state, Ordering::Relaxed);
            })
        });
        let made = made.into_inner();
        assert!((1..=rayon::current_num_threads()).contains(&made), "{made} states");
        assert!(total.into_inner() <= 5050);
    }
}
