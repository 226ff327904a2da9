/* Loads candidates and calls them: a small process, which is forked for each candidate.
 *
 * runner SOCKET SEGMENT SIZE  MEMORY OUTPUT  TENSORS (OFFSET SPARE STRIDE)...
 *     RESTORED (TENSOR PRISTINE BELOW BYTES)...  (OFFSET LENGTH PROTECTION)...
 *
 * SOCKET delivers "object\0entry\0" with one descriptor: the candidate's own socket. We reply with its process id.
 * The candidate is a child of our parent (CLONE_PARENT), which watches it, reaps it, and sends it commands over its
 * socket: {spares, warm, calls, samples, sweep}. Before each call it restores the tensors that the kernel changes, which
 * then are single ones. After each command it writes nanoseconds and the number of the command into
 * the segment, and stops itself with all its threads: so no thread goes on once the call has returned. If it cannot
 * load the object, it sends {1} and a text. autotune/sites/runner.py does the same for candidates in Python. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TENSORS = 8, MAX_SAMPLES = 4096 };

typedef void *P;
static P tensor[MAX_TENSORS];       /* where tensors are timed */
static char *spare[MAX_TENSORS];    /* where the first of their spare copies is */
static int64_t stride[MAX_TENSORS]; /* bytes from one copy to the next; 0 for an input that is not changed */
static int tensors;
/* Inputs that the kernel changes, and where their values are; see `Settings` in autotune/sites/messages.py. */
static struct { int tensor; const char *pristine; size_t below, bytes; } restored[MAX_TENSORS];
static int restores;
/* The segment, and its first pages: `HEADER` in autotune/sites/messages.py. */
static char *base;
static size_t size;
static struct { int32_t errno_at_death, commands; int64_t fault, nanoseconds[MAX_SAMPLES]; } volatile *header;

/* ENOMEM here means that a malloc failed; without it a crash is a wild pointer, or a write to an input. */
static void note_death(int number, siginfo_t *how, void *context) {
    const char *at = how->si_addr;
    (void)context;
    header->errno_at_death = errno;
    if (number == SIGSEGV && how->si_code > 0 && at > base && at < base + size) header->fault = at - base;
    raise(number);
}

static void watch_fatal_signals(void) {
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    static char own_stack[65536]; /* after a stack overflow the other has no room */
    stack_t stack = {.ss_sp = own_stack, .ss_size = sizeof own_stack};
    struct sigaction action = {
        .sa_sigaction = note_death, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER | SA_ONSTACK};
    sigaltstack(&stack, 0);
    for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++) sigaction(fatal[i], &action, 0);
}

static void limit(int resource, rlim_t value) {
    struct rlimit both; /* the user's own limit may be lower, and cannot be raised */
    getrlimit(resource, &both);
    if (both.rlim_max == RLIM_INFINITY || both.rlim_max > value) both.rlim_max = value;
    both.rlim_cur = both.rlim_max;
    setrlimit(resource, &both);
}

/* The call goes through a pointer into another object, so the compiler cannot inline it or move it out of the loop. */
#define REPEAT(types, arguments) \
    for (int64_t i = 0; i < calls; i++) ((void(*) types)entry) arguments
#define T(i) at[i]

static int64_t time_calls(void (*entry)(void), int64_t calls, const P *at) {
    struct timespec begin, end;
    errno = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    switch (tensors) {
    case 1: REPEAT((P), (T(0))); break;
    case 2: REPEAT((P, P), (T(0), T(1))); break;
    case 3: REPEAT((P, P, P), (T(0), T(1), T(2))); break;
    case 4: REPEAT((P, P, P, P), (T(0), T(1), T(2), T(3))); break;
    case 5: REPEAT((P, P, P, P, P), (T(0), T(1), T(2), T(3), T(4))); break;
    case 6: REPEAT((P, P, P, P, P, P), (T(0), T(1), T(2), T(3), T(4), T(5))); break;
    case 7: REPEAT((P, P, P, P, P, P, P), (T(0), T(1), T(2), T(3), T(4), T(5), T(6))); break;
    case 8: REPEAT((P, P, P, P, P, P, P, P), (T(0), T(1), T(2), T(3), T(4), T(5), T(6), T(7))); break;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (int64_t)(end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec);
}

static void sweep_caches(int64_t bytes) {
    static char *buffer;
    if (!buffer && !(buffer = malloc(bytes))) abort();
    memset(buffer, 1, bytes);
    __asm__ volatile("" : : "r"(buffer) : "memory"); /* else the compiler removes the stores */
}

static void restore(const P *at) {
    for (int i = 0; i < restores; i++)
        memcpy((char *)at[restored[i].tensor] - restored[i].below, restored[i].pristine, restored[i].bytes);
}

/* Call once for each spare copy of the outputs. A call that only looks right if an earlier one has written to the
 * same place, or that leaves work to a thread, does not get through this. */
static void call_spares(void (*entry)(void), int64_t spares) {
    P at[MAX_TENSORS];
    for (int64_t copy = 0; copy < spares; copy++) {
        for (int i = 0; i < tensors; i++) at[i] = spare[i] + copy * stride[i];
        restore(at);
        time_calls(entry, 1, at);
    }
}

static void refuse(int sock) {
    struct { int64_t refused; char text[1000]; } reply = {.refused = 1};
    recv(sock, reply.text, sizeof reply.text, 0); /* the command: unread data would reset the connection */
    snprintf(reply.text, sizeof reply.text, "%s", dlerror());
    fprintf(stderr, "%s\n", reply.text);
    send(sock, &reply, sizeof reply.refused + strlen(reply.text), 0);
    _exit(0);
}

/* A fork begins on the idlest core, whose clock is the lowest, and raising it takes longer than timing a short kernel.
 * So begin on our parent's core; later the scheduler may move us. */
static void begin_on(int cpu) {
    cpu_set_t all, one;
    if (cpu < 0 || sched_getaffinity(0, sizeof all, &all)) return;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (!sched_setaffinity(0, sizeof one, &one)) sched_setaffinity(0, sizeof all, &all);
}

static void be_candidate(int sock, int cpu, const char *object, const char *name) {
    struct { int64_t spares, warm, calls, samples, sweep; } command;
    void (*entry)(void);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    begin_on(cpu);
    void *library = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    if (!library) refuse(sock);
    *(void **)&entry = dlsym(library, name);
    if (!entry) refuse(sock);
    while (recv(sock, &command, sizeof command, 0) == sizeof command && command.samples <= MAX_SAMPLES) {
        call_spares(entry, command.spares);
        if (command.warm) {
            restore(tensor);
            time_calls(entry, command.warm, tensor);
        }
        for (int64_t i = 0; i < command.samples; i++) {
            restore(tensor);
            if (command.sweep) sweep_caches(command.sweep);
            header->nanoseconds[i] = time_calls(entry, command.calls, tensor);
        }
        fflush(0);
        header->commands++;
        kill(getpid(), SIGSTOP); /* all threads; the next command continues them */
    }
    _exit(0);
}

static ssize_t receive(int sock, char *text, size_t size, int *passed) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control;
    struct iovec data = {text, size};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t length = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *first = CMSG_FIRSTHDR(&message);
    if (length <= 0 || !first) return 0;
    memcpy(passed, CMSG_DATA(first), sizeof *passed);
    return length;
}

int main(int argc, char **argv) {
    static char text[16384];
    if (argc < 8) return 64;
    int sock = atoi(argv[1]), segment = atoi(argv[2]), own;
    size = strtoull(argv[3], 0, 10);
    base = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0);
    if (base == MAP_FAILED) return 71;
    close(segment);
    header = (void *)base;
    tensors = atoi(argv[6]);
    char **word = argv + 7;
    for (int i = 0; i < tensors; i++, word += 3) {
        tensor[i] = base + strtoull(word[0], 0, 10);
        spare[i] = base + strtoull(word[1], 0, 10);
        stride[i] = strtoll(word[2], 0, 10);
    }
    restores = atoi(*word++);
    for (int i = 0; i < restores; i++, word += 4) {
        restored[i].tensor = atoi(word[0]);
        restored[i].pristine = base + strtoull(word[1], 0, 10);
        restored[i].below = strtoull(word[2], 0, 10);
        restored[i].bytes = strtoull(word[3], 0, 10);
    }
    for (; word + 2 < argv + argc; word += 3)
        if (mprotect(base + strtoull(word[0], 0, 10), strtoull(word[1], 0, 10), atoi(word[2]))) return 71;
    rlim_t memory = strtoull(argv[4], 0, 10); /* 0 for no limit */
    if (memory) limit(RLIMIT_AS, size + memory);
    limit(RLIMIT_FSIZE, strtoull(argv[5], 0, 10));
    limit(RLIMIT_CORE, 0);
    prctl(PR_SET_DUMPABLE, 0); /* prevents core dumps into a pipe, too: RLIMIT_CORE does not */
    setvbuf(stdout, 0, _IOLBF, 0); /* so that lines printed before a crash are kept */
    watch_fatal_signals();
    while (receive(sock, text, sizeof text, &own) > 0) {
        int cpu = sched_getcpu();
        pid_t pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) {
            close(sock);
            be_candidate(own, cpu, text, text + strlen(text) + 1);
        }
        close(own);
        if (send(sock, &pid, sizeof pid, 0) < 0) break;
    }
    return 0;
}
