/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The mesh library by lines: a command on standard input, answered by one line that
 * begins with "ok" or "error"; records come before it as lines of JSON.
 *
 *     open PINS [unknown=N] [rate=N] [burst=N] [services=N] [endpoints=N] ...
 *     begin | commit | settle | close | detach | attach CGROUP
 *     tenant T DEFAULTS [NUMBER|PRECEDENCE|allow|in|SERVICE|any|PROTO|PORT ...]
 *     service T S ADDR PORT PROTO RATE BURST OPEN [ADDR,PORT,WEIGHT,HEALTHY ...]
 *     workload CGROUP T S FLAGS [ADDR ...]
 *     address ADDR/PREFIX T S FLAGS
 *     delete-tenant T | delete-service ADDR PORT PROTO | delete-workload CGROUP
 *     delete-address ADDR/PREFIX
 *     bulk SERVICES ENDPOINTS T      services at 10.96.0.0 + n, port 80
 *     events MS | counters | fill | cgroup PATH
 */

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "td_mesh.h"

#define WORDS    4096
#define MANY     1024


typedef struct {
    const char  *name;
    int          words;     /* at least */
    int        (*run)(int n, char **words);
} command_t;


static td_mesh_t          *mesh;
static char                answer[65536];
static td_mesh_endpoint_t  endpoints[WORDS];


static uint32_t
number(const char *word)
{
    return (uint32_t) strtoul(word, NULL, 0);
}


/* 32 or 128, or 0 for no address. */
static uint32_t
parse_address(const char *word, struct tg_addr *addr)
{
    memset(addr, 0, sizeof(*addr));

    if (strchr(word, ':') != NULL) {
        return inet_pton(AF_INET6, word, addr) == 1 ? 128 : 0;
    }

    addr->w[2] = htonl(0xffff);

    return inet_pton(AF_INET, word, &addr->w[3]) == 1 ? 32 : 0;
}


/* ADDR/PREFIX: the prefix is of 128 then. */
static int
parse_net(char *word, struct tg_addr *addr, uint32_t *prefix)
{
    char      *slash;
    uint32_t   bits;

    slash = strchr(word, '/');
    if (slash != NULL) {
        *slash++ = '\0';
    }

    bits = parse_address(word, addr);
    *prefix = slash ? number(slash) + 128 - bits : 128;

    return bits ? 0 : -EINVAL;
}


static int
parse_target(char **words, struct tg_target *target)
{
    memset(target, 0, sizeof(*target));
    target->port = (uint16_t) number(words[1]);
    target->proto = (uint8_t) number(words[2]);

    return parse_address(words[0], &target->addr) ? 0 : -EINVAL;
}


static int
run_open(int n, char **words)
{
    int                 i;
    size_t              k;
    const char         *error, *value;
    td_mesh_options_t   options = { .pins = words[1] };
    struct {
        const char  *name;
        uint32_t    *at;
    } names[] = {
        { "unknown=", &options.unknown }, { "rate=", &options.event_rate },
        { "burst=", &options.event_burst }, { "services=", &options.services },
        { "endpoints=", &options.endpoints }, { "workloads=", &options.workloads },
        { "tenants=", &options.tenants }, { "rules=", &options.rules },
        { "flows=", &options.flows }, { "ring=", &options.ring_bytes },
    };

    for (i = 2; i < n; i++) {
        for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
            value = words[i] + strlen(names[k].name);
            if (strncmp(words[i], names[k].name, strlen(names[k].name)) == 0) {
                *names[k].at = number(value);
            }
        }
    }

    td_mesh_close(mesh);
    mesh = td_mesh_open(&options, &error);
    if (mesh == NULL) {
        snprintf(answer, sizeof(answer), "%s: %s", error, strerror(errno));
        return -1;
    }

    return 0;
}


static int
run_begin(int n, char **words)
{
    (void) n;
    (void) words;
    td_mesh_begin(mesh);

    return 0;
}


static int
run_commit(int n, char **words)
{
    (void) n;
    (void) words;

    return td_mesh_commit(mesh);
}


static int
run_settle(int n, char **words)
{
    (void) n;
    (void) words;

    return td_mesh_settle(mesh);
}


static int
run_close(int n, char **words)
{
    (void) n;
    (void) words;
    td_mesh_close(mesh);
    mesh = NULL;

    return 0;
}


static int
run_detach(int n, char **words)
{
    int  err;

    (void) n;
    (void) words;
    err = td_mesh_detach(mesh);
    mesh = NULL;

    return err;
}


static int
run_attach(int n, char **words)
{
    (void) n;

    return td_mesh_attach(mesh, words[1]);
}


static int
parse_policy(char *word, tg_rule_policy_t *policy)
{
    int    i;
    char  *part[8], *save;

    memset(policy, 0, sizeof(*policy));
    save = NULL;

    for (i = 0; i < 8; i++) {
        part[i] = strtok_r(i == 0 ? word : NULL, "|", &save);
        if (part[i] == NULL) {
            return -EINVAL;
        }
    }

    policy->number = number(part[0]);
    policy->precedence = number(part[1]);
    policy->deny = strcmp(part[2], "deny") == 0;
    policy->direction = strcmp(part[3], "out") == 0 ? TG_OUT : TG_IN;
    policy->service = number(part[4]);
    policy->proto = (uint8_t) number(part[6]);
    policy->port = (uint16_t) number(part[7]);
    policy->peer = TG_PEER_ANY;

    if (strncmp(part[5], "service=", 8) == 0) {
        policy->peer = TG_PEER_SERVICE;
        policy->peer_number = number(part[5] + 8);
    } else if (strncmp(part[5], "tenant=", 7) == 0) {
        policy->peer = TG_PEER_TENANT;
        policy->peer_number = number(part[5] + 7);
    } else if (strncmp(part[5], "net=", 4) == 0) {
        policy->peer = TG_PEER_NET;
        return parse_net(part[5] + 4, &policy->peer_net, &policy->peer_prefix);
    }

    return 0;
}


static int
run_tenant(int n, char **words)
{
    int               i;
    td_mesh_tenant_t  tenant;
    static tg_rule_policy_t  policies[WORDS];

    tenant.tenant = number(words[1]);
    tenant.defaults = strcmp(words[2], "-") == 0 ? TG_DEFAULTS : number(words[2]);
    tenant.policies = policies;
    tenant.n_policies = 0;

    for (i = 3; i < n; i++) {
        if (parse_policy(words[i], &policies[tenant.n_policies++]) != 0) {
            snprintf(answer, sizeof(answer), "no policy: %s", words[i]);
            return -1;
        }
    }

    return td_mesh_put_tenant(mesh, &tenant);
}


static int
run_service(int n, char **words)
{
    int                 i;
    char               *part[4], *save;
    td_mesh_service_t   service;

    memset(&service, 0, sizeof(service));
    service.who.tenant = number(words[1]);
    service.who.service = number(words[2]);
    service.limit.rate = number(words[6]);
    service.limit.burst = number(words[7]);
    service.limit.open = number(words[8]);
    service.endpoints = endpoints;

    if (parse_target(&words[3], &service.target) != 0) {
        return -EINVAL;
    }

    for (i = 9; i < n; i++) {
        save = NULL;
        part[0] = strtok_r(words[i], ",", &save);
        part[1] = strtok_r(NULL, ",", &save);
        part[2] = strtok_r(NULL, ",", &save);
        part[3] = strtok_r(NULL, ",", &save);
        if (part[3] == NULL || !parse_address(part[0], &endpoints[i - 9].addr)) {
            return -EINVAL;
        }
        endpoints[i - 9].port = (uint16_t) number(part[1]);
        endpoints[i - 9].weight = number(part[2]);
        endpoints[i - 9].healthy = (int) number(part[3]);
        service.n_endpoints++;
    }

    return td_mesh_put_service(mesh, &service);
}


static int
run_workload(int n, char **words)
{
    int                    i, err;
    td_mesh_workload_t     workload;
    static struct tg_addr  addrs[WORDS];

    memset(&workload, 0, sizeof(workload));
    err = td_mesh_cgroup(words[1], &workload.cgroup, &workload.level);
    if (err != 0) {
        return err;
    }

    workload.who.tenant = number(words[2]);
    workload.who.service = number(words[3]);
    workload.flags = number(words[4]);
    workload.addrs = addrs;

    for (i = 5; i < n; i++) {
        if (!parse_address(words[i], &addrs[workload.n_addrs++])) {
            return -EINVAL;
        }
    }

    return td_mesh_put_workload(mesh, &workload);
}


static int
run_address(int n, char **words)
{
    td_mesh_address_t  address;

    (void) n;
    if (parse_net(words[1], &address.addr, &address.prefix) != 0) {
        return -EINVAL;
    }

    address.who.tenant = number(words[2]);
    address.who.service = number(words[3]);
    address.flags = number(words[4]);

    return td_mesh_put_address(mesh, &address);
}


static int
run_delete_tenant(int n, char **words)
{
    (void) n;

    return td_mesh_delete_tenant(mesh, number(words[1]));
}


static int
run_delete_service(int n, char **words)
{
    struct tg_target  target;

    (void) n;

    return parse_target(&words[1], &target) ? -EINVAL
                                            : td_mesh_delete_service(mesh, &target);
}


static int
run_delete_workload(int n, char **words)
{
    int       err;
    uint32_t  level;
    uint64_t  id;

    (void) n;
    err = td_mesh_cgroup(words[1], &id, &level);

    return err ? err : td_mesh_delete_workload(mesh, id);
}


static int
run_delete_address(int n, char **words)
{
    uint32_t        prefix;
    struct tg_addr  addr;

    (void) n;

    return parse_net(words[1], &addr, &prefix)
               ? -EINVAL : td_mesh_delete_address(mesh, &addr, prefix);
}


/* Services from 10.96.0.0 on, endpoints from 10.128.0.0 on, spread evenly. */
static int
run_bulk(int n, char **words)
{
    int                 err;
    uint32_t            i, k, services, each, at;
    struct timespec     begin, end;
    td_mesh_service_t   service;

    (void) n;
    services = number(words[1]);
    each = number(words[2]) / services;
    at = 0;
    err = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);

    for (i = 0; i < services && err == 0; i++) {
        memset(&service, 0, sizeof(service));
        service.who.tenant = number(words[3]);
        service.who.service = 100000 + i;
        service.target.addr.w[2] = htonl(0xffff);
        service.target.addr.w[3] = htonl((10U << 24 | 96 << 16) + i);
        service.target.port = 80;
        service.target.proto = 6;
        service.endpoints = endpoints;

        for (k = 0; k < each && k < MANY; k++, at++) {
            memset(&endpoints[k], 0, sizeof(endpoints[k]));
            endpoints[k].addr.w[2] = htonl(0xffff);
            endpoints[k].addr.w[3] = htonl((10U << 24 | 128 << 16) + at);
            endpoints[k].port = 8080;
            endpoints[k].weight = 1 + k;
            endpoints[k].healthy = 1;
        }

        service.n_endpoints = k;
        err = td_mesh_put_service(mesh, &service);
    }

    clock_gettime(CLOCK_MONOTONIC, &end);
    snprintf(answer, sizeof(answer), "%.3f",
             (double) (end.tv_sec - begin.tv_sec)
             + (double) (end.tv_nsec - begin.tv_nsec) / 1e9);

    return err;
}


static const char *
show_address(const struct tg_addr *addr, char text[INET6_ADDRSTRLEN])
{
    if (addr->w[0] == 0 && addr->w[1] == 0 && addr->w[2] == htonl(0xffff)) {
        return inet_ntop(AF_INET, &addr->w[3], text, INET6_ADDRSTRLEN);
    }

    return inet_ntop(AF_INET6, addr, text, INET6_ADDRSTRLEN);
}


static void
on_event(const struct tg_event *event, void *data)
{
    char  from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], virt[INET6_ADDRSTRLEN];

    (void) data;

    printf("{\"type\": %u, \"hook\": %u, \"reason\": %u, \"why\": \"%s\", \"rule\": %u, "
           "\"src\": [%u, %u], \"dst\": [%u, %u], "
           "\"from\": [\"%s\", %u], \"to\": [\"%s\", %u], \"virt\": [\"%s\", %u], "
           "\"proto\": %u, \"out\": %llu, \"in\": %llu, \"ns\": %llu, \"srtt\": %u, "
           "\"retransmits\": %u, \"lost\": %u, \"cookie\": %llu, \"cgroup\": %llu}\n",
           event->type, event->hook, event->reason,
           td_mesh_reason(event->reason) ? td_mesh_reason(event->reason) : "",
           event->rule, event->src.tenant, event->src.service,
           event->dst.tenant, event->dst.service,
           show_address(&event->from.addr, from), event->from.port,
           show_address(&event->to.addr, to), event->to.port,
           show_address(&event->virt.addr, virt), event->virt.port, event->to.proto,
           (unsigned long long) event->bytes_out, (unsigned long long) event->bytes_in,
           (unsigned long long) event->duration_ns, event->srtt_us,
           event->retransmits, event->lost, (unsigned long long) event->cookie,
           (unsigned long long) event->cgroup);
}


static int
run_events(int n, char **words)
{
    int  got;

    (void) n;
    got = td_mesh_poll(mesh, (int) number(words[1]), on_event, NULL);
    snprintf(answer, sizeof(answer), "%d", got);

    return got < 0 ? got : 0;
}


static int
run_counters(int n, char **words)
{
    int       i, err, length;
    uint64_t  counters[TG_COUNTERS];

    (void) n;
    (void) words;
    length = 0;
    err = td_mesh_counters(mesh, counters);

    for (i = 0; i < TG_COUNTERS && err == 0; i++) {
        if (counters[i] != 0) {
            length += snprintf(answer + length, sizeof(answer) - (size_t) length,
                               "%d=%llu ", i, (unsigned long long) counters[i]);
        }
    }

    return err;
}


static int
run_fill(int n, char **words)
{
    int             length;
    size_t          i, count;
    td_mesh_fill_t  fill[32];

    (void) n;
    (void) words;
    length = 0;
    count = td_mesh_fill(mesh, fill, 32);

    for (i = 0; i < count; i++) {
        length += snprintf(answer + length, sizeof(answer) - (size_t) length,
                           "%s=%zu/%zu/%llu ", fill[i].name, fill[i].used,
                           fill[i].size, (unsigned long long) fill[i].refused);
    }

    return 0;
}


static int
run_cgroup(int n, char **words)
{
    int       err;
    uint32_t  level;
    uint64_t  id;

    (void) n;
    err = td_mesh_cgroup(words[1], &id, &level);
    snprintf(answer, sizeof(answer), "%llu %u", (unsigned long long) id, level);

    return err;
}


static const command_t  commands[] = {
    { "open", 2, run_open },
    { "begin", 1, run_begin },
    { "commit", 1, run_commit },
    { "settle", 1, run_settle },
    { "close", 1, run_close },
    { "detach", 1, run_detach },
    { "attach", 2, run_attach },
    { "tenant", 3, run_tenant },
    { "service", 9, run_service },
    { "workload", 5, run_workload },
    { "address", 5, run_address },
    { "delete-tenant", 2, run_delete_tenant },
    { "delete-service", 4, run_delete_service },
    { "delete-workload", 2, run_delete_workload },
    { "delete-address", 2, run_delete_address },
    { "bulk", 4, run_bulk },
    { "events", 2, run_events },
    { "counters", 1, run_counters },
    { "fill", 1, run_fill },
    { "cgroup", 2, run_cgroup },
};


static int
run(int n, char **words)
{
    size_t  i;

    for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (n >= commands[i].words && strcmp(words[0], commands[i].name) == 0) {
            if (mesh == NULL && i > 0 && strcmp(words[0], "cgroup") != 0) {
                snprintf(answer, sizeof(answer), "not open");
                return -1;
            }
            return commands[i].run(n, words);
        }
    }

    snprintf(answer, sizeof(answer), "no such command, or too few words");

    return -1;
}


int
main(void)
{
    int           n, err;
    char         *line, *save, *word;
    size_t        room;
    static char  *words[WORDS];

    line = NULL;
    room = 0;

    while (getline(&line, &room, stdin) > 0) {
        save = NULL;
        n = 0;

        for (word = strtok_r(line, " \n", &save);
             word != NULL && n < WORDS;
             word = strtok_r(NULL, " \n", &save))
        {
            words[n++] = word;
        }

        if (n == 0) {
            continue;
        }

        answer[0] = '\0';
        err = run(n, words);

        if (err == 0) {
            printf("ok %s\n", answer);
        } else if (answer[0] == '\0' && mesh != NULL) {
            printf("error %d %s\n", err, td_mesh_error(mesh));
        } else {
            printf("error %d %s\n", err, answer);
        }
        fflush(stdout);
    }

    free(line);
    td_mesh_close(mesh);

    return 0;
}
