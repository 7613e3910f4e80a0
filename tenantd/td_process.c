/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/sched.h>

#include "td_process.h"


#define TD_PROCESS_STAT   1024
#define TD_PROCESS_ENV    16

/* The same on every architecture; headers of older systems lack them. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal  424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open         434
#endif
#ifndef SYS_clone3
#define SYS_clone3             435
#endif
#ifndef SYS_close_range
#define SYS_close_range        436
#endif
#ifndef P_PIDFD
#define P_PIDFD                3
#endif

#define TD_PROCESS_CLOSE_ON_EXEC  4     /* CLOSE_RANGE_CLOEXEC */

/* struct clone_args of linux/sched.h, as of Linux 5.3. */
typedef struct {
    uint64_t  flags, pidfd, child_tid, parent_tid, exit_signal, stack,
              stack_size, tls;
} td_process_clone_t;

struct td_process_s {
    pid_t               pid;
    int                 pidfd;
    unsigned long long  started;
    struct event       *event;
    void              (*ended)(void *data, int status);
    void               *data;
};

/* What a gateway may know of tenantd's environment: no password is in it. */
static const char *const  td_process_passed[] = {
    "PATH", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "OPENSSL_CONF"
};


/* The text of /proc/PID/NAME; returns its length, or -1. */
static ssize_t
td_process_read(pid_t pid, const char *name, char *text, size_t size)
{
    int      fd;
    char     path[64];
    ssize_t  n;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int) pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }

    n = read(fd, text, size - 1);
    close(fd);

    if (n >= 0) {
        text[n] = '\0';
    }

    return n;
}


/* Field n (from 3, see proc(5)) of /proc/PID/stat as a number; *state is field 3. */
static unsigned long long
td_process_stat(pid_t pid, int n, char *state)
{
    int    i;
    char   text[TD_PROCESS_STAT];
    char  *p;

    if (td_process_read(pid, "stat", text, sizeof(text)) <= 0) {
        return 0;
    }

    p = strrchr(text, ')');     /* the name before it may hold anything */

    if (p == NULL || p[1] == '\0') {
        return 0;
    }

    p += 2;
    *state = *p;

    for (i = 3; i < n && p != NULL; i++) {
        p = strchr(p, ' ');
        p = p != NULL ? p + 1 : NULL;
    }

    return p != NULL ? strtoull(p, NULL, 10) : 0;
}


unsigned long long
td_process_start_time(pid_t pid)
{
    char                state;
    unsigned long long  started;

    state = 'X';
    started = td_process_stat(pid, 22, &state);

    return state == 'Z' || state == 'X' ? 0 : started;
}


unsigned long long
td_process_clock(void)
{
    struct timespec     ts;
    unsigned long long  ticks;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    ticks = (unsigned long long) sysconf(_SC_CLK_TCK);

    return (unsigned long long) ts.tv_sec * ticks
           + (unsigned long long) ts.tv_nsec / (1000000000 / ticks);
}


int
td_process_has_old_workers(const td_process_t *process,
    unsigned long long before)
{
    char                children[TD_PROCESS_STAT * 4], command[128], name[64];
    char               *p, *end;
    pid_t               pid;
    unsigned long long  started;

    snprintf(name, sizeof(name), "task/%d/children", (int) process->pid);

    if (td_process_read(process->pid, name, children, sizeof(children)) <= 0) {
        return 0;
    }

    for (p = children; (pid = (pid_t) strtol(p, &end, 10)) > 0; p = end) {
        started = td_process_start_time(pid);

        if (started != 0 && started < before
            && td_process_read(pid, "cmdline", command, sizeof(command)) > 0
            && strstr(command, "shutting down") == NULL)
        {
            return 1;
        }
    }

    return 0;
}


static pid_t
td_process_session(pid_t pid)
{
    char  state;

    return (pid_t) td_process_stat(pid, 6, &state);
}


static int
td_process_works_in(pid_t pid, const struct stat *directory)
{
    char         path[64];
    struct stat  st;

    snprintf(path, sizeof(path), "/proc/%d/cwd", (int) pid);

    return stat(path, &st) == 0 && st.st_dev == directory->st_dev
           && st.st_ino == directory->st_ino;
}


/* For the pids of /proc: calls visit for each that works in directory. */
static void
td_process_each(const char *directory, void (*visit)(pid_t pid, void *data),
    void *data)
{
    DIR            *dir;
    long            pid;
    char           *end;
    struct stat     st;
    struct dirent  *entry;

    if (stat(directory, &st) != 0) {
        return;
    }

    dir = opendir("/proc");
    if (dir == NULL) {
        return;
    }

    while ((entry = readdir(dir)) != NULL) {
        pid = strtol(entry->d_name, &end, 10);

        if (*end == '\0' && pid > 0 && pid != getpid()
            && td_process_works_in((pid_t) pid, &st))
        {
            visit((pid_t) pid, data);
        }
    }

    closedir(dir);
}


static void
td_process_visit_master(pid_t pid, void *data)
{
    char    command[64];
    pid_t  *found = data;

    if (td_process_session(pid) == pid
        && td_process_read(pid, "cmdline", command, sizeof(command)) > 0
        && strncmp(command, "nginx: master", 13) == 0)
    {
        *found = pid;
    }
}


pid_t
td_process_find_master(const char *directory, unsigned long long *started)
{
    pid_t  pid;

    pid = 0;
    td_process_each(directory, td_process_visit_master, &pid);
    *started = pid != 0 ? td_process_start_time(pid) : 0;

    return *started != 0 ? pid : 0;
}


typedef struct {
    const char  *directory;
    pid_t        session;
    int          leaders;       /* only those that lead their session */
    int          n;
} td_process_kill_t;


/* The pidfd is opened first and the process looked at again: what is then killed
 * is what was looked at. */
static void
td_process_visit_kill(pid_t pid, void *data)
{
    int                 pidfd;
    struct stat         st;
    td_process_kill_t  *kill = data;

    pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        return;
    }

    if (td_process_start_time(pid) != 0
        && (kill->session == 0 || td_process_session(pid) == kill->session)
        && (!kill->leaders || td_process_session(pid) == pid)
        && stat(kill->directory, &st) == 0 && td_process_works_in(pid, &st))
    {
        kill->n++;
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    }

    close(pidfd);
}


int
td_process_kill_all(const char *directory, pid_t session)
{
    td_process_kill_t  kill = { directory, session, 1, 0 };

    /* masters first, which would take note of the death of their workers */
    td_process_each(directory, td_process_visit_kill, &kill);
    kill.leaders = 0;
    kill.n = 0;
    td_process_each(directory, td_process_visit_kill, &kill);

    return kill.n;
}


static void
td_process_on_end(evutil_socket_t fd, short what, void *data)
{
    int            status;
    void          *owner;
    siginfo_t      info;
    td_process_t  *process = data;
    void         (*ended)(void *data, int status);

    (void) what;

    memset(&info, 0, sizeof(info));
    status = -1;

    if (waitid((idtype_t) P_PIDFD, (id_t) fd, &info, WEXITED | WNOHANG) == 0
        && info.si_pid != 0)
    {
        status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8
                                            : info.si_status & 0x7f;
    }

    ended = process->ended;
    owner = process->data;
    td_process_release(process);
    ended(owner, status);
}


/* Takes the pidfd. */
static td_process_t *
td_process_create(const td_process_options_t *options, pid_t pid, int pidfd,
    unsigned long long started)
{
    td_process_t  *process;

    process = calloc(1, sizeof(td_process_t));

    if (process == NULL) {
        close(pidfd);
        errno = ENOMEM;
        return NULL;
    }

    process->pid = pid;
    process->pidfd = pidfd;
    process->started = started;
    process->ended = options->ended;
    process->data = options->data;
    process->event = event_new(options->base, pidfd, EV_READ,
                               td_process_on_end, process);

    if (process->event == NULL || event_add(process->event, NULL) != 0) {
        td_process_release(process);
        errno = ENOMEM;
        return NULL;
    }

    return process;
}


static char **
td_process_environment(void)
{
    size_t       i, n;
    char       **env;
    const char  *value;

    env = calloc(TD_PROCESS_ENV, sizeof(char *));

    for (i = 0, n = 0; env != NULL
         && i < sizeof(td_process_passed) / sizeof(td_process_passed[0]);
         i++)
    {
        value = getenv(td_process_passed[i]);

        if (value != NULL
            && asprintf(&env[n], "%s=%s", td_process_passed[i], value) >= 0)
        {
            n++;
        }
    }

    return env;
}


static void
td_process_free_environment(char **env)
{
    size_t  i;

    for (i = 0; env != NULL && env[i] != NULL; i++) {
        free(env[i]);
    }

    free(env);
}


/* In the child, from here to execve() only what signal-safety(7) allows. */
static void
td_process_child(const td_process_options_t *options, int output, char **env)
{
    int            i, null, procs;
    sigset_t       none;
    struct rlimit  files;
    static const char  failed[] = "tenantd: cannot execute ";

    setsid();

    for (i = 1; i < NSIG; i++) {
        signal(i, SIG_DFL);
    }

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    /* not by CLONE_INTO_CGROUP: Linux 6.18 ends at once what is born into a cgroup
     * that was killed before */
    if (options->cgroup >= 0) {
        procs = openat(options->cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        (void) !write(procs, "0", 1);
    }

    null = open("/dev/null", O_RDONLY);

    if (dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0
        || dup2(output, STDERR_FILENO) < 0)
    {
        _exit(127);
    }

    syscall(SYS_close_range, 3, ~0U, TD_PROCESS_CLOSE_ON_EXEC);

    if (options->nofile > 0) {
        files.rlim_cur = (rlim_t) options->nofile;
        files.rlim_max = (rlim_t) options->nofile;
        (void) setrlimit(RLIMIT_NOFILE, &files);
    }

    /* for good, and without tenantd's other groups */
    if (options->uid != 0
        && (setgroups(0, NULL) != 0
            || setresgid(options->uid, options->uid, options->uid) != 0
            || setresuid(options->uid, options->uid, options->uid) != 0))
    {
        _exit(127);
    }

    umask(027);

    if (chdir(options->directory) == 0) {
        execve(options->argv[0], options->argv, env);
    }

    i = errno;
    (void) !write(STDERR_FILENO, failed, sizeof(failed) - 1);
    (void) !write(STDERR_FILENO, options->argv[0], strlen(options->argv[0]));
    (void) !write(STDERR_FILENO, i == ENOENT ? ": no such file\n"
                                             : ": not possible\n", 15);
    _exit(127);
}


/* As fork(), with a pidfd. */
static pid_t
td_process_fork(int *pidfd)
{
    pid_t               pid;
    td_process_clone_t  args;

    memset(&args, 0, sizeof(args));
    args.flags = CLONE_PIDFD;
    args.pidfd = (uint64_t) (uintptr_t) pidfd;
    args.exit_signal = SIGCHLD;

    pid = (pid_t) syscall(SYS_clone3, &args, sizeof(args));

    if (pid >= 0) {
        return pid;
    }

    /* some containers do not know it */
    pid = fork();

    if (pid > 0) {
        *pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
    }

    return pid;
}


td_process_t *
td_process_start(const td_process_options_t *options)
{
    int     output, pidfd, error;
    char  **env, path[PATH_MAX];
    pid_t   pid;

    snprintf(path, sizeof(path), "%s/%s", options->directory, options->output);
    output = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC
                  | O_APPEND | O_NOFOLLOW, 0640);
    if (output < 0) {
        return NULL;
    }

    env = td_process_environment();
    if (env == NULL) {
        close(output);
        errno = ENOMEM;
        return NULL;
    }

    pidfd = -1;
    pid = td_process_fork(&pidfd);

    if (pid == 0) {
        td_process_child(options, output, env);
    }

    error = errno;
    close(output);
    td_process_free_environment(env);

    if (pid < 0 || pidfd < 0) {
        errno = error;
        return NULL;
    }

    return td_process_create(options, pid, pidfd, td_process_start_time(pid));
}


td_process_t *
td_process_adopt(const td_process_options_t *options, pid_t pid,
    unsigned long long started)
{
    int          pidfd;
    char         command[64];
    struct stat  st;

    pidfd = pid > 0 ? (int) syscall(SYS_pidfd_open, pid, 0) : -1;
    if (pidfd < 0) {
        errno = ESRCH;
        return NULL;
    }

    /* after the pidfd was opened: it is this process's, or it is nobody's */
    if (started == 0 || td_process_start_time(pid) != started
        || stat(options->directory, &st) != 0
        || !td_process_works_in(pid, &st)
        || td_process_read(pid, "cmdline", command, sizeof(command)) <= 0
        || strstr(command, "nginx") == NULL)
    {
        close(pidfd);
        errno = ESRCH;
        return NULL;
    }

    return td_process_create(options, pid, pidfd, started);
}


void
td_process_release(td_process_t *process)
{
    if (process == NULL) {
        return;
    }

    if (process->event != NULL) {
        event_free(process->event);
    }

    close(process->pidfd);
    free(process);
}


pid_t
td_process_pid(const td_process_t *process)
{
    return process->pid;
}


unsigned long long
td_process_started(const td_process_t *process)
{
    return process->started;
}


int
td_process_signal(td_process_t *process, int signal)
{
    return (int) syscall(SYS_pidfd_send_signal, process->pidfd, signal, NULL, 0);
}


void
td_process_limit_files(td_process_t *process, long nofile)
{
    struct rlimit  files = { (rlim_t) nofile, (rlim_t) nofile };

    if (nofile > 0 && td_process_start_time(process->pid) == process->started) {
        (void) prlimit(process->pid, RLIMIT_NOFILE, &files, NULL);
    }
}
