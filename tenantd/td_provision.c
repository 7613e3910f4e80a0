/* SPDX-License-Identifier: BSD-2-Clause */

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "td_cgroup.h"
#include "td_fault.h"
#include "td_feed.h"
#include "td_handover.h"
#include "td_instance.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_pg.h"
#include "td_pool.h"
#include "td_prefix.h"
#include "td_provision.h"
#include "td_sql.h"


#define TD_PROVISION_TIMEOUT      30000     /* ms, for one statement */
#define TD_PROVISION_CONNECTIONS  2
#define TD_PROVISION_QUEUE        65536
#define TD_PROVISION_CLAIM        "64"      /* instances at once */
#define TD_PROVISION_BUCKETS      1024      /* a power of two */
#define TD_PROVISION_TEMPLATE     (256 * 1024)
#define TD_PROVISION_PREFIX       "dedicated-"

/* Columns of TD_SQL_INSTANCES_OF. */
typedef enum {
    TD_WORK_NAME, TD_WORK_TENANT, TD_WORK_DESIRED, TD_WORK_GENERATION,
    TD_WORK_OBSERVED, TD_WORK_ATTEMPTS, TD_WORK_RETRY_AT, TD_WORK_PORT,
    TD_WORK_SPEC
} td_work_column_e;

typedef struct td_member_s {
    TAILQ_ENTRY(td_member_s)   link;
    struct td_member_s        *next;        /* in the bucket */
    td_instance_t             *instance;
} td_member_t;

TAILQ_HEAD(td_members_s, td_member_s);

struct td_provision_s {
    td_daemon_t            *daemon;
    td_host_t               host;
    td_pg_options_t         options;
    td_pg_t                *pg;             /* listens and reads */
    struct event           *poll;
    struct event           *reap;
    td_handover_t          *handover;

    struct td_members_s     members;
    td_member_t            *bucket[TD_PROVISION_BUCKETS];
    struct td_members_s     gone;

    char                    node[256];
    char                    first[16], last[16];
    int                     listening;
    int                     reading;        /* or making itself listen */
    int                     complete;       /* the next read is with every spec */
    int                     dirty;          /* a hint came during a read */
    int                     claimed;        /* rows; as many as asked for: more */
    unsigned                round;
    long                    since;          /* when the read under way began */

    uint64_t                reconciled;
    double                  seconds;
};


static unsigned
td_provision_hash(const char *name)
{
    unsigned  h;

    for (h = 5381; *name != '\0'; name++) {
        h = h * 33 + (unsigned char) *name;
    }

    return h & (TD_PROVISION_BUCKETS - 1);
}


static td_instance_t *
td_provision_find(td_provision_t *p, const char *name)
{
    td_member_t  *member;

    for (member = p->bucket[td_provision_hash(name)];
         member != NULL;
         member = member->next)
    {
        if (strcmp(td_instance_name(member->instance), name) == 0) {
            return member->instance;
        }
    }

    return NULL;
}


static td_instance_t *
td_provision_add(td_provision_t *p, const char *name)
{
    unsigned      h;
    td_member_t  *member;

    member = calloc(1, sizeof(td_member_t));
    if (member == NULL) {
        return NULL;
    }

    member->instance = td_instance_create(&p->host, name);
    if (member->instance == NULL) {
        free(member);
        return NULL;
    }

    h = td_provision_hash(name);
    member->next = p->bucket[h];
    p->bucket[h] = member;
    TAILQ_INSERT_TAIL(&p->members, member, link);

    return member->instance;
}


/* The instance is in the middle of its own function. */
static void
td_provision_on_gone(void *data, td_instance_t *instance)
{
    td_member_t     *member, **at;
    td_provision_t  *p = data;

    at = &p->bucket[td_provision_hash(td_instance_name(instance))];

    while ((*at)->instance != instance) {
        at = &(*at)->next;
    }

    member = *at;
    *at = member->next;
    TAILQ_REMOVE(&p->members, member, link);
    TAILQ_INSERT_TAIL(&p->gone, member, link);
    event_active(p->reap, EV_TIMEOUT, 0);
}


static void
td_provision_on_reap(evutil_socket_t fd, short what, void *data)
{
    td_member_t     *member;
    td_provision_t  *p = data;

    (void) fd;
    (void) what;

    while ((member = TAILQ_FIRST(&p->gone)) != NULL) {
        TAILQ_REMOVE(&p->gone, member, link);
        td_instance_destroy(member->instance);
        free(member);
    }
}


static void
td_provision_on_ready(void *data)
{
    td_provision_t  *p = data;

    td_handover_advance(p->handover);
}


/* Reading what is wanted */

static void
td_provision_read(td_provision_t *p)
{
    td_pg_step_t  step[4];

    if (td_pg_state(p->pg) != TD_PG_IDLE || !p->listening) {
        p->dirty = 1;
        return;
    }

    memset(step, 0, sizeof(step));
    step[0].statement = TD_SQL_BEGIN;

    step[1].statement = TD_SQL_INSTANCES_CLAIM;
    step[1].param[0] = p->node;
    step[1].param[1] = "process";
    step[1].param[2] = TD_PROVISION_CLAIM;
    step[1].param[3] = p->first;
    step[1].param[4] = p->last;
    step[1].param[5] = p->daemon->config->provisioner.advertise[0] != '\0'
                       ? p->daemon->config->provisioner.advertise
                       : p->daemon->config->provisioner.address;

    step[2].statement = TD_SQL_INSTANCES_OF;
    step[2].param[0] = p->node;
    step[2].param[1] = p->complete ? "true" : "false";

    step[3].statement = TD_SQL_COMMIT;

    p->dirty = 0;
    p->reading = 1;
    p->claimed = 0;
    p->round++;
    p->since = td_now();
    td_pg_run(p->pg, step, 4);
}


static int64_t
td_provision_number(const PGresult *result, int row, td_work_column_e column)
{
    return PQgetisnull(result, row, column) ? 0
           : atoll(PQgetvalue(result, row, column));
}


static void
td_provision_take(td_provision_t *p, const PGresult *result, int row)
{
    const char     *name;
    td_work_t       work;
    td_instance_t  *instance;

    name = PQgetvalue(result, row, TD_WORK_NAME);
    instance = td_provision_find(p, name);

    if (instance == NULL) {
        instance = td_provision_add(p, name);
    }

    if (instance == NULL) {
        return;
    }

    td_instance_see(instance, p->round);

    memset(&work, 0, sizeof(work));
    snprintf(work.name, sizeof(work.name), "%s", name);
    snprintf(work.tenant, sizeof(work.tenant), "%s",
             PQgetvalue(result, row, TD_WORK_TENANT));
    work.running = strcmp(PQgetvalue(result, row, TD_WORK_DESIRED), "running")
                   == 0;
    work.generation = td_provision_number(result, row, TD_WORK_GENERATION);
    work.observed_generation = td_provision_number(result, row,
                                                   TD_WORK_OBSERVED);
    work.attempts = (int) td_provision_number(result, row, TD_WORK_ATTEMPTS);
    work.retry_at = td_provision_number(result, row, TD_WORK_RETRY_AT);
    work.port = (int) td_provision_number(result, row, TD_WORK_PORT);
    work.read_at = p->since;

    if (td_instance_wants(instance, &work)) {
        return;
    }

    if (!PQgetisnull(result, row, TD_WORK_SPEC)) {
        work.spec = json_loads(PQgetvalue(result, row, TD_WORK_SPEC), 0, NULL);
    }

    td_instance_want(instance, &work);
}


/* Those of which the registry says nothing any more. */
static void
td_provision_sweep(td_provision_t *p)
{
    td_member_t  *member, *next;

    if (p->host.registry[0] == '\0') {
        return;
    }

    for (member = TAILQ_FIRST(&p->members); member != NULL; member = next) {
        next = TAILQ_NEXT(member, link);

        if (td_instance_seen(member->instance) != p->round) {
            td_instance_vanish(member->instance);
        }
    }
}


static void
td_provision_on_result(td_pg_t *pg, unsigned step, PGresult *result, void *data)
{
    int              i;
    td_provision_t  *p = data;

    (void) pg;

    if (!p->reading || step == 0) {
        return;
    }

    if (step == 1) {
        p->claimed = PQntuples(result);
    }

    if (step != 2) {
        return;
    }

    for (i = 0; i < PQntuples(result); i++) {
        td_provision_take(p, result, i);
    }

    td_provision_sweep(p);
}


static void
td_provision_on_connected(td_pg_t *pg, void *data)
{
    td_pg_step_t     step;
    td_provision_t  *p = data;

    memset(&step, 0, sizeof(step));
    step.statement = TD_SQL_LISTEN_INSTANCES;
    p->listening = 0;
    p->reading = 0;
    p->complete = 1;
    p->since = td_now();
    td_pool_hurry(p->host.pool);
    td_pg_run(pg, &step, 1);
}


static void
td_provision_on_done(td_pg_t *pg, td_pg_outcome_e outcome, const PGresult *error,
    void *data)
{
    td_provision_t  *p = data;

    (void) pg;

    if (outcome == TD_PG_ERROR) {
        td_log(TD_LOG_ERR, "provision", "the registry does not say what is "
               "wanted: %s", td_fault_text(error));
        return;         /* the poll timer tries again */
    }

    if (outcome != TD_PG_OK) {
        return;
    }

    if (!p->reading) {
        p->listening = 1;
        td_provision_read(p);
        return;
    }

    p->reading = 0;
    p->complete = 0;
    p->reconciled++;
    p->seconds += (double) (td_now() - p->since) / 1000;
    td_handover_advance(p->handover);

    if (p->dirty || p->claimed == atoi(TD_PROVISION_CLAIM)) {
        td_provision_read(p);
    }
}


static void
td_provision_on_lost(td_pg_t *pg, void *data)
{
    td_provision_t  *p = data;

    (void) pg;

    p->listening = 0;
    p->reading = 0;
}


static void
td_provision_on_notified(td_pg_t *pg, const char *channel, void *data)
{
    (void) pg;
    (void) channel;

    td_provision_read(data);
}


static const td_pg_handlers_t  td_provision_handlers = {
    td_provision_on_connected, td_provision_on_result, td_provision_on_done,
    td_provision_on_lost, td_provision_on_notified,
    NULL
};


static void
td_provision_retry(td_provision_t *p)
{
    td_member_t  *member, *next;

    for (member = TAILQ_FIRST(&p->members); member != NULL; member = next) {
        next = TAILQ_NEXT(member, link);
        td_instance_retry(member->instance);
    }
}


static void
td_provision_on_poll(evutil_socket_t fd, short what, void *data)
{
    td_provision_t  *p = data;

    (void) fd;
    (void) what;

    if (p->daemon->draining) {
        return;
    }

    if (td_pg_state(p->pg) == TD_PG_IDLE && p->listening) {
        td_provision_read(p);

    } else if (td_pg_state(p->pg) == TD_PG_IDLE) {
        td_provision_on_connected(p->pg, p);

    } else if (td_pg_state(p->pg) == TD_PG_BUSY
               && td_now() - p->since > 2 * TD_PROVISION_TIMEOUT)
    {
        td_pg_abandon(p->pg, "no answer in time");
    }

    td_provision_retry(p);
}


static void
td_provision_on_database_up(void *data)
{
    td_provision_t  *p = data;

    td_pg_hurry(p->pg);
    td_provision_retry(p);
}


/* What was left by another life of tenantd */

static void
td_provision_adopt(td_provision_t *p)
{
    DIR            *dir;
    struct dirent  *entry;
    td_instance_t  *instance;

    dir = opendir(p->daemon->config->provisioner.directory);
    if (dir == NULL) {
        return;
    }

    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, TD_PROVISION_PREFIX,
                    strlen(TD_PROVISION_PREFIX)) != 0
            || strlen(entry->d_name) > 63)
        {
            continue;
        }

        instance = td_provision_add(p, entry->d_name);
        if (instance != NULL) {
            td_instance_adopt(instance);
        }
    }

    closedir(dir);
}


/* Making and unmaking */

static int
td_provision_find_user(td_provision_t *p, tg_error_t *err)
{
    const char           *user;
    const struct group   *group;
    const struct passwd  *entry;

    user = p->daemon->config->provisioner.user;
    p->host.uid = (uid_t) -1;
    p->host.gid = (gid_t) -1;
    p->host.users = p->daemon->config->provisioner.users.first != 0;

    if (geteuid() != 0) {
        if (p->host.users) {
            tg_error_set(err, "", "[provisioner] users: only root can give "
                         "gateways users of their own");
            return -1;
        }

        return 0;       /* nginx could not become another */
    }

    if (user[0] == '\0') {
        if (p->host.users) {
            return 0;
        }

        tg_error_set(err, "", "[provisioner] user or users must say whose "
                     "nginx's workers are, since tenantd is root");
        return -1;
    }

    entry = getpwnam(user);

    if (entry == NULL) {
        tg_error_set(err, "", "[provisioner] user: there is no user \"%s\"",
                     user);
        return -1;
    }

    /* by name, for nginx would look for a group with the user's name */
    group = getgrgid(entry->pw_gid);

    if (group == NULL || strlen(group->gr_name) >= sizeof(p->host.group)) {
        tg_error_set(err, "", "[provisioner] user: the group of \"%s\" has no "
                     "name", user);
        return -1;
    }

    snprintf(p->host.group, sizeof(p->host.group), "%s", group->gr_name);
    p->host.user = user;
    p->host.uid = entry->pw_uid;
    p->host.gid = entry->pw_gid;

    return 0;
}


static int
td_provision_load_template(td_provision_t *p, tg_error_t *err)
{
    char        *text;
    const char  *path, *name;
    char         directory[PATH_MAX];

    path = p->daemon->config->provisioner.template;
    name = strrchr(path, '/');

    if (path[0] == '\0') {
        return 0;
    }

    snprintf(directory, sizeof(directory), "%.*s",
             name != NULL ? (int) (name - path) : 1, name != NULL ? path : ".");
    text = td_prefix_read(directory, name != NULL ? name + 1 : path,
                          TD_PROVISION_TEMPLATE);

    if (text == NULL) {
        tg_error_set(err, "", "[provisioner] template: cannot read \"%.150s\": "
                     "%s", path, strerror(errno));
        return -1;
    }

    p->host.template = text;

    return 0;
}


static int
td_provision_name_node(td_provision_t *p, tg_error_t *err)
{
    const char  *node;

    node = p->daemon->config->provisioner.node;
    snprintf(p->node, sizeof(p->node), "%s", node);

    if (node[0] == '\0' && gethostname(p->node, sizeof(p->node) - 1) != 0) {
        tg_error_set(err, "", "[provisioner] node: the host has no name");
        return -1;
    }

    snprintf(p->first, sizeof(p->first), "%ld",
             p->daemon->config->provisioner.ports.first);
    snprintf(p->last, sizeof(p->last), "%ld",
             p->daemon->config->provisioner.ports.last);

    return 0;
}


/* Told now rather than by each gateway, which would be tried for ever. */
static int
td_provision_check_directory(const td_provision_t *p, tg_error_t *err)
{
    const char  *directory;

    directory = p->daemon->config->provisioner.directory;

    if (strlen(directory) <= TD_PREFIX_DIRECTORY) {
        return 0;
    }

    tg_error_set(err, "", "[provisioner] directory: \"%.150s\" is longer than %d bytes, "
                 "too long for sockets below it", directory, TD_PREFIX_DIRECTORY);

    return -1;
}


static int
td_provision_make(td_provision_t *p, tg_error_t *err)
{
    long                ms;
    struct timeval      tv;
    td_daemon_t        *daemon;
    td_pool_options_t   options;

    daemon = p->daemon;

    if (td_provision_check_directory(p, err) != 0
        || td_provision_find_user(p, err) != 0
        || td_provision_load_template(p, err) != 0
        || td_provision_name_node(p, err) != 0)
    {
        return -1;
    }

    tg_error_set(err, "", "out of memory");

    p->options.base = daemon->base;
    p->options.conninfo = daemon->config->database.conninfo;
    p->options.role = daemon->config->database.role;
    p->options.connect_timeout = daemon->config->database.connect_timeout;
    p->options.statement_timeout = TD_PROVISION_TIMEOUT;
    p->options.statements = td_sql_statements();
    p->options.n_statements = td_sql_count();

    options.pg = p->options;
    options.connections = TD_PROVISION_CONNECTIONS;
    options.writers = TD_PROVISION_CONNECTIONS;
    options.queue = TD_PROVISION_QUEUE;
    options.up = td_provision_on_database_up;
    options.data = p;

    ms = daemon->config->provisioner.poll;
    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;

    p->host.base = daemon->base;
    p->host.config = daemon->config;
    p->host.registry = td_feed_registry(daemon->feed);
    p->host.ready = td_provision_on_ready;
    p->host.gone = td_provision_on_gone;
    p->host.data = p;

    if ((p->host.cgroup = td_cgroup_create(daemon->config->provisioner.cgroup))
           == NULL
        || (p->poll = event_new(daemon->base, -1, EV_PERSIST,
                                td_provision_on_poll, p)) == NULL
        || (p->reap = event_new(daemon->base, -1, 0, td_provision_on_reap, p))
           == NULL
        || (p->host.pool = td_pool_create(&options)) == NULL
        || (p->handover = td_handover_create(daemon->base, p->host.pool, ms))
           == NULL
        || event_add(p->poll, &tv) != 0)
    {
        return -1;
    }

    td_provision_adopt(p);

    p->pg = td_pg_create(&p->options, &td_provision_handlers, p);

    return p->pg != NULL ? 0 : -1;
}


td_provision_t *
td_provision_create(td_daemon_t *daemon, tg_error_t *err)
{
    td_provision_t  *p;

    p = calloc(1, sizeof(td_provision_t));
    if (p == NULL) {
        tg_error_set(err, "", "out of memory");
        return NULL;
    }

    p->daemon = daemon;
    TAILQ_INIT(&p->members);
    TAILQ_INIT(&p->gone);

    if (td_provision_make(p, err) != 0) {
        td_provision_destroy(p);
        return NULL;
    }

    return p;
}


void
td_provision_destroy(td_provision_t *p)
{
    td_member_t  *member;

    if (p == NULL) {
        return;
    }

    td_pg_destroy(p->pg);
    td_handover_destroy(p->handover);
    TAILQ_CONCAT(&p->gone, &p->members, link);

    while ((member = TAILQ_FIRST(&p->gone)) != NULL) {
        TAILQ_REMOVE(&p->gone, member, link);
        td_instance_destroy(member->instance);
        free(member);
    }

    td_pool_destroy(p->host.pool);

    if (p->poll != NULL) {
        event_free(p->poll);
    }

    if (p->reap != NULL) {
        event_free(p->reap);
    }

    td_cgroup_destroy(p->host.cgroup);
    free(p->host.template);
    free(p);
}


void
td_provision_hurry(td_provision_t *p)
{
    td_pg_hurry(p->pg);
    td_pool_hurry(p->host.pool);
}


void
td_provision_write_metrics(const td_provision_t *p, tg_text_t *text)
{
    int                 phase, count[TD_PHASE_N];
    const td_member_t  *member;

    memset(count, 0, sizeof(count));

    TAILQ_FOREACH(member, &p->members, link) {
        count[td_state_phase(td_instance_state(member->instance))]++;
    }

    tg_text_str(text, "# HELP tiergate_instances Dedicated instances of this "
                "machine, by phase.\n# TYPE tiergate_instances gauge\n");

    for (phase = 0; phase < TD_PHASE_N; phase++) {
        tg_text_printf(text, "tiergate_instances{phase=\"%s\"} %d\n",
                       td_phase_name((td_phase_e) phase), count[phase]);
    }

    td_handover_write_metrics(p->handover, text);

    tg_text_printf(text, "# HELP tiergate_reconcile_seconds Time to read what "
                   "is wanted of the instances, and to begin with it.\n"
                   "# TYPE tiergate_reconcile_seconds summary\n"
                   "tiergate_reconcile_seconds_sum %.6f\n"
                   "tiergate_reconcile_seconds_count %llu\n", p->seconds,
                   (unsigned long long) p->reconciled);
}
