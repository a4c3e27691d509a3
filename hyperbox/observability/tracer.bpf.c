// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Counts system calls exactly by process and call, samples their latency, and reports single calls
 * and the lives of processes.
 *
 * A call is counted when it enters: exit_group never returns, and what a fork's child returns from it
 * never entered. The tally is in a region that only this processor writes. User space reads it
 * through mmap, and alternates between two tables. Raw tracepoints (Linux 4.17) fire after seccomp
 * has decided, so a call that a filter denies is not seen here. Kernel structures are read at offsets
 * that user space takes from the kernel's BTF.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define TS_COMPAT 0x0002      /* arch/x86/include/asm/thread_info.h: the call came by 32-bit entry */
#define X32_BIT 0x40000000    /* __X32_SYSCALL_BIT of <asm/unistd.h> */
#define ABI_SHIFT 30
#define NUMBER_MASK ((1u << ABI_SHIFT) - 1)
#define PROBES 8              /* places where a key may be in a table */
#define FAILURES 5            /* errors by number that a tally has */
#define BUCKETS 20            /* of latency: below 2^8 ns, 2^9, ... */
#define FIRST_BUCKET 8
#define MAX_ERRNO 4095
#define IN_FLIGHT 65536       /* calls, by the thread's number */
#define SPILLED_NUMBERS 1024
#define PAGE 4096
#define EXECVE 59
#define COMM 16
#define PATH 256

enum abi { X86_64, I386, X32 };
enum filter { ALL, TREE, CGROUP };
enum why { SLOW = 1, FAILED = 2, EXEMPLAR = 4, EVERY = 8, APPROXIMATE = 16 };
enum stage { FORKED = 1, EXECUTED, RENAMED, EXITED };
enum counter { SKIPPED, SPILLED, RING_FULL, RATE_LIMITED, SLOT_TAKEN, LIVES_FULL, PID_UNKNOWN, COUNTERS = 8 };

struct thread_info {
	__u32 status;
} __attribute__((preserve_access_index));

struct task_struct {
	struct thread_info thread_info;
} __attribute__((preserve_access_index));

struct control {
	__u32 active;       /* the table in use: 0 or 1 */
	__u32 slots;        /* of a table, of one processor; a power of two */
	__u32 processors;
	__u32 filter;
	__u32 tracer;       /* this process is never traced */
	__u32 starting;     /* this one is from its next execve on */
	__u32 timing;       /* whether ends of calls are looked at */
	__u32 sample_mask;  /* a call is timed if its number in the tally, and this, are 0 */
	__u32 every;        /* whether every call is reported */
	__u32 slow_ticks;
	__u32 tick_ns;
	__u32 events;       /* whether calls are taken from perf's tracepoints */
	/* offsets */
	__u32 status;       /* task_struct.thread_info.status */
	__u32 pid;          /* task_struct.pid */
	__u32 tgid;         /* task_struct.tgid */
	__u32 start;        /* task_struct.start_boottime */
	__u32 exit_code;    /* task_struct.exit_code */
	__u32 signal;       /* task_struct.signal */
	__u32 live;         /* signal_struct.live */
	__u32 group_exit;   /* signal_struct.group_exit_code */
	__u32 filename;     /* linux_binprm.filename */
};

struct failure {
	__u32 number;
	__u32 count;
};

struct tally {
	__u64 key; /* process << 32 | abi << 30 | number of the call; 0 if the place is free */
	__u64 count;
	__u64 sum_ns;
	__u64 max_ns;
	__u32 timed;
	__u32 errors;
	struct failure failures[FAILURES];
	__u32 buckets[BUCKETS];
};

struct flight {
	__u64 key;
	__u64 start_ns; /* 0 if the call is not timed */
	__u64 tick;
	__u32 thread;
	__u32 zero;
};

struct call {
	__u64 start_ns;
	__u64 duration_ns;
	__s64 result;
	__u64 key;
	__u32 thread;
	__u32 why;
};

struct life {
	__u64 time_ns;
	__u64 start_ns; /* CLOCK_BOOTTIME; 0 if not of this event */
	__u64 cgroup;
	__u32 kind;
	__u32 process;
	__u32 other;    /* FORKED: the parent, EXECUTED: the thread's number before */
	__s32 code;
	char comm[COMM];
	char path[PATH];
};

/* events/raw_syscalls/sys_enter/format, and sys_exit */
struct event {
	__u64 common;
	__s64 number;
	__s64 value; /* what a call returns */
};

struct counters {
	__u64 of[COUNTERS];
};

struct flags {
	__u8 of[PAGE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control_map SEC(".maps");

/* Two tables, of a region for each processor; user space sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
} tallies_map SEC(".maps");

/* Calls whose tally has no place, by ABI and number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 3 * SPILLED_NUMBERS);
	__type(key, __u32);
	__type(value, __u64);
} spilled_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IN_FLIGHT);
	__type(key, __u32);
	__type(value, struct flight);
} flights_map SEC(".maps");

/* A line of the cache for each processor; user space sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters_map SEC(".maps");

/* Whether a process belongs to the traced tree, a byte each; user space sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flags);
} members_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cgroup_map SEC(".maps");

/* Ring buffers came with Linux 5.8; before, the programs whose names end in _perf are loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} calls_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} lives_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} calls_perf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} lives_perf SEC(".maps");

typedef struct bpf_raw_tracepoint_args arguments;

#define BOTH(name, tracepoint)                                                                         \
	SEC("raw_tracepoint/" tracepoint) int name##_ring(arguments *context)                          \
	{                                                                                              \
		return name(context, 0);                                                               \
	}                                                                                              \
	SEC("raw_tracepoint/" tracepoint) int name##_perf(arguments *context)                          \
	{                                                                                              \
		return name(context, 1);                                                               \
	}

static __always_inline struct control *controlled(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control_map, &zero);
}

static __always_inline void bump(enum counter which)
{
	__u32 processor = bpf_get_smp_processor_id();
	struct counters *counters = bpf_map_lookup_elem(&counters_map, &processor);

	if (counters)
		counters->of[which] += 1;
}

static __always_inline __u8 *member(__u32 process)
{
	__u32 page = process / PAGE;
	struct flags *flags = bpf_map_lookup_elem(&members_map, &page);

	return flags ? &flags->of[process % PAGE] : 0;
}

static __always_inline int traced(struct control *control, __u32 process)
{
	__u8 *flag;

	if (process == control->tracer)
		return 0;
	if (control->filter == ALL)
		return 1;
	if (control->filter == CGROUP)
		return bpf_current_task_under_cgroup(&cgroup_map, 0) == 1;
	flag = member(process);
	if (!flag)
		bump(PID_UNKNOWN);
	return flag && *flag;
}

static __always_inline __u64 key_of(__u32 process, __u64 number, __u32 status)
{
	__u64 abi = X86_64;

	if (status & TS_COMPAT)
		abi = I386;
	else if ((__s32)number >= 0 && number & X32_BIT)
		abi = X32;
	return (__u64)process << 32 | abi << ABI_SHIFT | (number & NUMBER_MASK);
}

static __always_inline struct tally *find(struct control *control, __u64 key)
{
	__u32 region = (control->active * control->processors + bpf_get_smp_processor_id()) * control->slots;
	__u32 hash = key * 0x9e3779b97f4a7c15ull >> 32; /* Fibonacci hashing: high bits are the good ones */

#pragma unroll
	for (int probe = 0; probe < PROBES; probe++) {
		__u32 place = region + ((hash + probe) & (control->slots - 1));
		struct tally *tally = bpf_map_lookup_elem(&tallies_map, &place);

		if (!tally)
			return 0;
		if (!tally->key)
			tally->key = key;
		if (tally->key == key)
			return tally;
	}
	return 0;
}

static __always_inline void spill(__u64 key)
{
	__u32 number = key & NUMBER_MASK;
	__u32 abi = (__u32)key >> ABI_SHIFT;
	__u32 place = abi * SPILLED_NUMBERS + (number < SPILLED_NUMBERS ? number : SPILLED_NUMBERS - 1);
	__u64 *count = bpf_map_lookup_elem(&spilled_map, &place);

	if (count)
		__sync_fetch_and_add(count, 1);
	bump(SPILLED);
}

static __always_inline struct flight *flight_of(__u32 thread)
{
	__u32 place = thread % IN_FLIGHT;

	return bpf_map_lookup_elem(&flights_map, &place);
}

/* The command that the tracer starts is traced from its execve on, which is counted. */
static __always_inline void begin(struct control *control, __u32 process, __u64 number)
{
	__u8 *flag;

	if (process != control->starting || number != EXECVE)
		return;
	flag = member(process);
	if (flag)
		*flag = 1;
	control->starting = 0;
}

static __always_inline int count(__u64 number, __u32 status, __u32 events)
{
	struct control *control = controlled();
	__u64 identity = bpf_get_current_pid_tgid();
	__u32 process = identity >> 32, thread = identity;
	struct flight *flight;
	struct tally *tally;
	__u64 key, entered = 0;

	if (!control || control->events != events)
		return 0;
	if (control->starting)
		begin(control, process, number);
	if (!traced(control, process)) {
		bump(SKIPPED);
		return 0;
	}
	flight = flight_of(thread);
	/* The raw program has counted it, just before the change to events. */
	if (events && control->timing && flight && flight->key && flight->thread == thread)
		return 0;
	key = key_of(process, number, status);
	tally = find(control, key);
	if (tally)
		entered = ++tally->count;
	else
		spill(key);
	if (!control->timing || !flight)
		return 0;
	if (flight->key && flight->thread != thread)
		bump(SLOT_TAKEN);
	flight->thread = thread;
	flight->tick = bpf_jiffies64();
	flight->start_ns = entered < 16 || !(entered & control->sample_mask) ? bpf_ktime_get_ns() : 0;
	flight->key = key;
	return 0;
}

/* With the types of the kernel's BTF the status is read without a helper: 55 ns less a call. */
SEC("tp_btf/sys_enter")
int enter_typed(__u64 *context)
{
	return count(context[1], bpf_get_current_task_btf()->thread_info.status, 0);
}

/*
 * Where programs at raw tracepoints can be preempted (after 6.18), no other task's calls pass the
 * program until the preempted one goes on. perf's tracepoints disable preemption, and cost 130 ns
 * more: they are taken once that has happened.
 */
SEC("tracepoint/raw_syscalls/sys_enter")
int enter_event(struct event *event)
{
	count(event->number, bpf_get_current_task_btf()->thread_info.status, 1);
	return 1; /* 0 would hide the event from everybody's perf */
}

/* The helper above came with Linux 5.11. */
SEC("raw_tracepoint/sys_enter")
int enter_raw(arguments *context)
{
	struct control *control = controlled();
	__u32 status = 0;

	if (control)
		bpf_probe_read_kernel(&status, sizeof(status), (void *)bpf_get_current_task() + control->status);
	return count(context->args[1], status, 0);
}

static __always_inline __u32 bucket_of(__u64 duration_ns)
{
	__u64 rest = duration_ns >> FIRST_BUCKET;
	__u32 bucket = 0;

	if (rest >> 32)
		return BUCKETS - 1;
	if (rest >> 16) {
		rest >>= 16;
		bucket += 16;
	}
	if (rest >> 8) {
		rest >>= 8;
		bucket += 8;
	}
	if (rest >> 4) {
		rest >>= 4;
		bucket += 4;
	}
	if (rest >> 2) {
		rest >>= 2;
		bucket += 2;
	}
	if (rest >> 1) {
		rest >>= 1;
		bucket += 1;
	}
	bucket += rest;
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static __always_inline void time(struct tally *tally, __u64 duration_ns)
{
	__u64 bucket = bucket_of(duration_ns);

	/* clang would compare a shifted copy, which the verifier of 5.10 does not follow. */
	asm volatile("" : "+r"(bucket));
	tally->timed += 1;
	tally->sum_ns += duration_ns;
	if (duration_ns > tally->max_ns)
		tally->max_ns = duration_ns;
	if (bucket < BUCKETS)
		tally->buckets[bucket] += 1;
}

static __always_inline void fail(struct tally *tally, __u32 number)
{
	tally->errors += 1;
#pragma unroll
	for (int place = 0; place < FAILURES; place++) {
		struct failure *failure = &tally->failures[place];

		if (!failure->number)
			failure->number = number;
		if (failure->number == number) {
			failure->count += 1;
			return;
		}
	}
}

/* Powers of two, and one of so many: few of what is frequent, the first of all. */
static __always_inline int chosen(__u32 count, __u32 mask)
{
	return !(count & (count - 1)) || !(count & mask);
}

static __always_inline void report(void *context, struct call *call, int perf)
{
	long failed;

	if (perf)
		failed = bpf_perf_event_output(context, &calls_perf, BPF_F_CURRENT_CPU, call, sizeof(*call));
	else
		failed = bpf_ringbuf_output(&calls_ring, call, sizeof(*call), BPF_RB_NO_WAKEUP);
	if (failed)
		bump(RING_FULL);
}

static __always_inline int end(void *context, __s64 result, int perf)
{
	struct control *control = controlled();
	__u32 thread = bpf_get_current_pid_tgid();
	struct flight *flight = flight_of(thread);
	struct call call = {.thread = thread, .result = result};
	int failed = call.result < 0 && call.result >= -MAX_ERRNO;
	struct tally *tally;
	__u64 ticks, now;

	if (!control || !flight || flight->thread != thread || !flight->key)
		return 0;
	call.key = flight->key;
	call.start_ns = flight->start_ns;
	ticks = bpf_jiffies64() - flight->tick;
	flight->key = 0;
	if (!call.start_ns && !failed && ticks < control->slow_ticks)
		return 0;
	tally = find(control, call.key);
	now = bpf_ktime_get_ns();
	if (!call.start_ns) {
		call.start_ns = now - ticks * control->tick_ns;
		call.why = APPROXIMATE;
	}
	call.duration_ns = now - call.start_ns;
	if (tally && call.why != APPROXIMATE)
		time(tally, call.duration_ns);
	if (ticks >= control->slow_ticks)
		call.why |= SLOW;
	if (failed) {
		if (tally)
			fail(tally, -call.result);
		if (control->every || (tally && chosen(tally->errors, 63)))
			call.why |= FAILED;
		else
			bump(RATE_LIMITED);
	}
	if (control->every)
		call.why |= EVERY;
	else if (tally && call.why == 0 && chosen(tally->timed, 255))
		call.why = EXEMPLAR;
	if (call.why & ~APPROXIMATE)
		report(context, &call, perf);
	return 0;
}

static __always_inline int leave(arguments *context, int perf)
{
	return end(context, context->args[1], perf);
}
BOTH(leave, "sys_exit")

SEC("tracepoint/raw_syscalls/sys_exit")
int leave_event(struct event *event)
{
	end(event, event->value, 0);
	return 1;
}

static __always_inline __u32 word_at(void *address)
{
	__u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), address);
	return word;
}

static __always_inline __u64 long_at(void *address)
{
	__u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), address);
	return word;
}

/* `size` leaves the path out where there is none. */
static __always_inline void tell(void *context, struct life *life, int perf, __u64 size)
{
	long failed;

	life->time_ns = bpf_ktime_get_ns();
	if (perf)
		failed = bpf_perf_event_output(context, &lives_perf, BPF_F_CURRENT_CPU, life, size);
	else
		failed = bpf_ringbuf_output(&lives_ring, life, size, BPF_RB_NO_WAKEUP);
	if (failed)
		bump(LIVES_FULL);
}

#define WITHOUT_PATH __builtin_offsetof(struct life, path)

static __always_inline int forked(arguments *context, int perf)
{
	struct control *control = controlled();
	void *child = (void *)context->args[1];
	struct life life;
	__u8 *flag;

	__builtin_memset(&life, 0, WITHOUT_PATH);
	life.kind = FORKED;
	life.other = bpf_get_current_pid_tgid() >> 32;
	if (!control || !traced(control, life.other))
		return 0;
	life.process = word_at(child + control->tgid);
	if (life.process == life.other)
		return 0; /* a thread */
	flag = member(life.process);
	if (flag)
		*flag = 1;
	life.start_ns = long_at(child + control->start);
	life.cgroup = bpf_get_current_cgroup_id();
	bpf_get_current_comm(life.comm, sizeof(life.comm));
	tell(context, &life, perf, WITHOUT_PATH);
	return 0;
}
BOTH(forked, "sched_process_fork")

static __always_inline int executed(arguments *context, int perf)
{
	struct control *control = controlled();
	__u64 identity = bpf_get_current_pid_tgid();
	__u32 thread = identity, before = context->args[1];
	struct flight *from, *to;
	struct life life;

	__builtin_memset(&life, 0, sizeof(life));
	life.kind = EXECUTED;
	life.process = identity >> 32;
	if (!control || !traced(control, life.process))
		return 0;
	/* A thread that executes takes the number of its process, in the midst of the call. */
	from = flight_of(before);
	to = flight_of(thread);
	if (before != thread && from && to && from->thread == before) {
		to->key = from->key;
		to->start_ns = from->start_ns;
		to->tick = from->tick;
		to->thread = thread;
		from->key = 0;
	}
	life.other = before;
	life.cgroup = bpf_get_current_cgroup_id();
	bpf_get_current_comm(life.comm, sizeof(life.comm));
	bpf_probe_read_kernel_str(life.path, sizeof(life.path),
				  (void *)long_at((void *)context->args[2] + control->filename));
	tell(context, &life, perf, sizeof(life));
	return 0;
}
BOTH(executed, "sched_process_exec")

static __always_inline int renamed(arguments *context, int perf)
{
	struct control *control = controlled();
	void *task = (void *)context->args[0];
	struct life life;

	__builtin_memset(&life, 0, WITHOUT_PATH);
	life.kind = RENAMED;
	if (!control)
		return 0;
	life.process = word_at(task + control->tgid);
	if (life.process != word_at(task + control->pid) || !traced(control, life.process))
		return 0;
	bpf_probe_read_kernel_str(life.comm, sizeof(life.comm), (void *)context->args[1]);
	tell(context, &life, perf, WITHOUT_PATH);
	return 0;
}
BOTH(renamed, "task_rename")

static __always_inline int exited(arguments *context, int perf)
{
	struct control *control = controlled();
	__u64 identity = bpf_get_current_pid_tgid();
	void *task = (void *)bpf_get_current_task(), *group;
	struct flight *flight;
	struct life life;
	__u8 *flag;

	__builtin_memset(&life, 0, WITHOUT_PATH);
	life.kind = EXITED;
	life.process = identity >> 32;
	if (!control || !traced(control, life.process))
		return 0;
	/* exit has not returned: the next thread of this number must not seem to return from it. */
	flight = flight_of(identity);
	if (flight && flight->thread == (__u32)identity)
		flight->key = 0;
	group = (void *)long_at(task + control->signal);
	if (word_at(group + control->live))
		return 0; /* other threads live on */
	life.code = word_at(group + control->group_exit);
	if (!life.code)
		life.code = word_at(task + control->exit_code);
	life.cgroup = bpf_get_current_cgroup_id();
	bpf_get_current_comm(life.comm, sizeof(life.comm));
	flag = member(life.process);
	if (flag)
		*flag = 0;
	tell(context, &life, perf, WITHOUT_PATH);
	return 0;
}
BOTH(exited, "sched_process_exit")

char LICENSE[] SEC("license") = "GPL";
