/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Processes that outlive tenantd: a child in its own session and, where there is
 * one, its own cgroup, watched through a pidfd.  Another life of tenantd takes it
 * over by pid and start time.
 *
 * A pid alone never gets a signal: it may belong to somebody else by now.  A
 * session number is safe while anything of the session lives, for the kernel does
 * not give it out again; so are its members, if they work in the given directory.
 */

#ifndef TD_PROCESS_H
#define TD_PROCESS_H

#include <sys/types.h>

#include <event2/event.h>

typedef struct td_process_s  td_process_t;

typedef struct {
    struct event_base  *base;
    char *const        *argv;
    const char         *directory;      /* where it works, too */
    const char         *output;         /* file in it for stdout and stderr, emptied */
    int                 cgroup;         /* directory's descriptor, or -1 */
    long                nofile;         /* RLIMIT_NOFILE, or 0: as it is */
    uid_t               uid;            /* whose it is, and whose group; 0: as
                                         * tenantd is */
    /* It has ended; status as waitpid's, or -1 when it was no child.  The process
     * is freed when this returns. */
    void              (*ended)(void *data, int status);
    void               *data;
} td_process_options_t;

/*
 * Starts argv.  NULL: errno tells why.  That the program cannot be executed is
 * reported by an exit status of 127 and a line in output.
 */
td_process_t *td_process_start(const td_process_options_t *options);

/*
 * Takes over a running process: argv, output, cgroup and nofile are not used.
 * NULL with errno ESRCH: it is gone, or the pid is another's.
 */
td_process_t *td_process_adopt(const td_process_options_t *options, pid_t pid,
    unsigned long long started);

/* Forgets it; it runs on. */
void td_process_release(td_process_t *process);

pid_t td_process_pid(const td_process_t *process);

/* Clock ticks from the machine's boot to the start, see proc(5); 0: unknown. */
unsigned long long td_process_started(const td_process_t *process);

/* Signals it, and nobody else.  Returns 0, or -1 with errno. */
int td_process_signal(td_process_t *process, int signal);

/* Sets RLIMIT_NOFILE of the running process, for children that it will have. */
void td_process_limit_files(td_process_t *process, long nofile);

/* Now, in the clock of start times. */
unsigned long long td_process_clock(void);

/*
 * Whether it has children from before that time which are not about to end: workers
 * of nginx that still take connections, with the configuration before.
 */
int td_process_has_old_workers(const td_process_t *process,
    unsigned long long before);

/* The master of nginx that works in directory, or 0.  Looks at every process. */
pid_t td_process_find_master(const char *directory,
    unsigned long long *started);

/*
 * Sends SIGKILL to what works in directory and is of the session, or of any if it
 * is 0.  Returns how many there were; call again until it is none.
 */
int td_process_kill_all(const char *directory, pid_t session);

/* Start time of a pid, as above; 0: there is no such process, or it has ended. */
unsigned long long td_process_start_time(pid_t pid);

#endif /* TD_PROCESS_H */
