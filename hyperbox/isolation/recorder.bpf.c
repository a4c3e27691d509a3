// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Counts the system calls of the tasks below one cgroup, and reports the programs they execute.
 *
 * Raw tracepoints (Linux 4.17) fire after seccomp has decided, so a call that a filter denies is not
 * seen here. Kernel structures are read at offsets that user space takes from the kernel's BTF; an
 * offset of 0 means that it is not known, and what would be read there is reported as unknown.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TS_COMPAT 0x0002 /* arch/x86/include/asm/thread_info.h: the call came by 32-bit entry */
#define UNKNOWN 0xff
#define PATH_LENGTH 256

struct settings {
	__u32 status;   /* task_struct.thread_info.status */
	__u32 mode;     /* task_struct.seccomp.mode */
	__u32 filename; /* linux_binprm.filename */
	__u32 interp;   /* linux_binprm.interp */
};

struct call {
	__u32 number;
	__u8 compat; /* 1 for 32-bit entry */
	__u8 mode;   /* the task's seccomp mode: 0 none, 2 filter */
	__u16 zero;
};

struct program {
	char filename[PATH_LENGTH];
	char interp[PATH_LENGTH];
};

enum lost { LOST_CALLS, LOST_PROGRAMS, LOST_KINDS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cgroup_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct call);
	__type(value, __u64);
} calls_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOST_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} lost_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} programs_map SEC(".maps");

static __always_inline struct settings *known(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings_map, &zero);
}

static __always_inline void lose(__u32 kind)
{
	__u64 *count = bpf_map_lookup_elem(&lost_map, &kind);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void describe(struct call *call, struct settings *offsets)
{
	void *task = (void *)bpf_get_current_task();
	__u32 word = 0;

	call->compat = UNKNOWN;
	call->mode = UNKNOWN;
	if (offsets->status && !bpf_probe_read_kernel(&word, sizeof(word), task + offsets->status))
		call->compat = !!(word & TS_COMPAT);
	if (offsets->mode && !bpf_probe_read_kernel(&word, sizeof(word), task + offsets->mode))
		call->mode = word;
}

SEC("raw_tracepoint/sys_enter")
int record_call(struct bpf_raw_tracepoint_args *context)
{
	struct settings *offsets = known();
	struct call call = {.number = context->args[1]};
	__u64 one = 1, *count;

	if (!offsets || bpf_current_task_under_cgroup(&cgroup_map, 0) != 1)
		return 0;
	describe(&call, offsets);
	count = bpf_map_lookup_elem(&calls_map, &call);
	if (count) {
		__sync_fetch_and_add(count, 1);
		return 0;
	}
	if (!bpf_map_update_elem(&calls_map, &call, &one, BPF_NOEXIST))
		return 0;
	/* Another processor was first, or the map is full. */
	count = bpf_map_lookup_elem(&calls_map, &call);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		lose(LOST_CALLS);
	return 0;
}

static __always_inline void read_path(char *path, void *binprm, __u32 offset)
{
	void *string = 0;

	path[0] = 0;
	if (offset && !bpf_probe_read_kernel(&string, sizeof(string), binprm + offset))
		bpf_probe_read_kernel_str(path, PATH_LENGTH, string);
}

SEC("raw_tracepoint/sched_process_exec")
int record_program(struct bpf_raw_tracepoint_args *context)
{
	struct settings *offsets = known();
	struct program *program;

	if (!offsets || bpf_current_task_under_cgroup(&cgroup_map, 0) != 1)
		return 0;
	program = bpf_ringbuf_reserve(&programs_map, sizeof(*program), 0);
	if (!program) {
		lose(LOST_PROGRAMS);
		return 0;
	}
	read_path(program->filename, (void *)context->args[2], offsets->filename);
	read_path(program->interp, (void *)context->args[2], offsets->interp);
	bpf_ringbuf_submit(program, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
