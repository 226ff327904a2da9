"""C source of a kernel's entry point: the exported function, and the threads that share its work.

The threads stay alive between calls, because starting one takes as long as a small product. After its share a
thread looks for the next one for a fraction of a millisecond, then sleeps. When the caller has finished its
own share, it also does each share whose thread has not begun: so a thread that wakes slowly, or could not be
started, delays nothing. A forked process starts threads of its own. The threads end when the library is
unloaded.
"""

from __future__ import annotations

from collections.abc import Sequence

_WORKERS = """\
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOOKS = 2000 };
enum { IDLE, ASLEEP, OPEN, TAKEN, ENDED };

static struct worker {
    int state, started;
    pthread_t thread;
} __attribute__((aligned(64))) workers[SHARES]; /* the first is the caller's, which has no thread */
#define EACH_WORKER (struct worker *worker = workers + 1; worker < workers + SHARES; worker++)
static pid_t owner; /* whose the threads are: a forked process has none of them */

static int change(struct worker *worker, int from, int to) {
    return __atomic_compare_exchange_n(&worker->state, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static int state_of(const struct worker *worker) { return __atomic_load_n(&worker->state, __ATOMIC_ACQUIRE); }

/* Linux likes to wake a thread on the core of its waker, and takes some milliseconds to part them. */
static void keep_off_this_core(struct worker *worker) {
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others)) return;
    CPU_CLR(sched_getcpu(), &others);
    pthread_setaffinity_np(worker->thread, sizeof others, &others); /* fails if no other core is left */
}

static void tell(struct worker *worker, int state) {
    if (__atomic_exchange_n(&worker->state, state, __ATOMIC_ACQ_REL) != ASLEEP) return;
    keep_off_this_core(worker);
    syscall(SYS_futex, &worker->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *work(void *argument) {
    struct worker *worker = argument;
    for (int looks = 0, state; (state = state_of(worker)) != ENDED; looks++) {
        if (state == OPEN && change(worker, OPEN, TAKEN)) {
            share_of_call(worker - workers);
            change(worker, TAKEN, IDLE);
            looks = 0;
        } else if (state == ASLEEP || (looks >= LOOKS && change(worker, IDLE, ASLEEP))) {
            syscall(SYS_futex, &worker->state, FUTEX_WAIT_PRIVATE, ASLEEP, NULL, NULL, 0);
            looks = 0;
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void start_workers(void) {
    owner = getpid();
    for EACH_WORKER {
        worker->state = IDLE;
        worker->started = pthread_create(&worker->thread, NULL, work, worker) == 0;
    }
}

__attribute__((destructor)) static void end_workers(void) {
    if (owner != getpid()) return;
    for EACH_WORKER {
        if (!worker->started) continue;
        tell(worker, ENDED);
        pthread_join(worker->thread, NULL);
    }
}

static void share_out(void) {
    if (owner != getpid()) start_workers();
    for EACH_WORKER tell(worker, OPEN);
    share_of_call(0);
    for EACH_WORKER
        if (change(worker, OPEN, IDLE)) share_of_call(worker - workers);
    for EACH_WORKER
        while (state_of(worker) == TAKEN) sched_yield();
}
"""


def entry_point(entry: str, inputs: Sequence[str], outputs: Sequence[str], threads: int) -> str:
    """Return the exported function; it calls `share(thread, inputs..., outputs...)` on each thread.

    Only one caller at a time may use it, because packed operands are in buffers of the library.

    Args:
        entry: the exported symbol.
        inputs: names of the input pointers.
        outputs: names of the output pointers.
        threads: how many threads share the work, the caller included.
    """
    parameters = [f"const T *{name}" for name in inputs] + [f"T *{name}" for name in outputs]
    names = [*inputs, *outputs]
    head = f"void {entry}({', '.join(parameters)})"
    if threads == 1:
        return f"{head} {{ share(0, {', '.join(names)}); }}\n"
    return f"""\
enum {{ SHARES = {threads} }};
static struct {{ {" ".join(f"{parameter};" for parameter in parameters)} }} call;

static void share_of_call(ptrdiff_t thread) {{
    share(thread, {", ".join(f"call.{name}" for name in names)});
}}

{_WORKERS}
{head} {{
    {" ".join(f"call.{name} = {name};" for name in names)}
    share_out();
}}
"""
