/* SPDX-License-Identifier: BSD-2-Clause */

#include "td_mesh_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tg_mesh.skel.h"

#define PINS            "/sys/fs/bpf/tiergate"
#define EVENT_RATE      1000
#define EVENT_BURST     512


static const char  *map_names[TD_MESH_MAPS] = {
    "tg_services", "tg_endpoints", "tg_limits", "tg_workloads", "tg_sources",
    "tg_hosts", "tg_nets", "tg_tenants", "tg_rules", "tg_cidrs",
};


int
td_mesh_fail(td_mesh_t *mesh, int err, const char *what)
{
    snprintf(mesh->error, sizeof(mesh->error), "%s: %s", what,
             err == -E2BIG ? "the map is full" : strerror(-err));

    return err;
}


const char *
td_mesh_error(const td_mesh_t *mesh)
{
    return mesh->error;
}


/* Programs see it with their next call.  0 is kept for "nothing to judge by". */
void
td_mesh_changed(td_mesh_t *mesh)
{
    mesh->epoch = mesh->epoch == UINT32_MAX ? 1 : mesh->epoch + 1;

    if (mesh->settings->epoch != 0) {
        __atomic_store_n(&mesh->settings->epoch, mesh->epoch, __ATOMIC_RELEASE);
    }
}


/* The folder of pins, on a bpf file system that is mounted when it is missing. */
static int
make_pins(td_mesh_t *mesh)
{
    char           path[320];
    struct statfs  fs;

    if (strncmp(mesh->pins, "/sys/fs/bpf/", 12) == 0
        && statfs("/sys/fs/bpf", &fs) == 0 && fs.f_type != BPF_FS_MAGIC
        && mount("bpf", "/sys/fs/bpf", "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                 "mode=0700") != 0)
    {
        return -errno;
    }

    if (mkdir(mesh->pins, 0700) != 0 && errno != EEXIST) {
        return -errno;
    }

    if (statfs(mesh->pins, &fs) != 0 || fs.f_type != BPF_FS_MAGIC) {
        return -EMEDIUMTYPE;
    }

    snprintf(path, sizeof(path), "%s/maps-%d", mesh->pins, TG_LAYOUT);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return -errno;
    }

    return 0;
}


/* A map that is pinned already keeps the size it has. */
static int
pin_map(td_mesh_t *mesh, struct bpf_map *map)
{
    int                  fd, err;
    char                 path[320];
    uint32_t             length;
    struct bpf_map_info  info;

    snprintf(path, sizeof(path), "%s/maps-%d/%s", mesh->pins, TG_LAYOUT,
             bpf_map__name(map));

    fd = bpf_obj_get(path);
    if (fd >= 0) {
        memset(&info, 0, sizeof(info));
        length = sizeof(info);

        err = bpf_obj_get_info_by_fd(fd, &info, &length);
        close(fd);
        if (err == 0 && info.max_entries != bpf_map__max_entries(map)) {
            err = bpf_map__set_max_entries(map, info.max_entries);
        }
        if (err != 0) {
            return err;
        }
    }

    return bpf_map__set_pin_path(map, path);
}


static void
set_sizes(struct tg_mesh *skeleton, const td_mesh_options_t *options)
{
    struct {
        struct bpf_map  *map;
        uint32_t         size;
    } sizes[] = {
        { skeleton->maps.tg_services, options->services },
        { skeleton->maps.tg_limits, options->services },
        { skeleton->maps.tg_meters, options->services },
        { skeleton->maps.tg_endpoints, options->endpoints },
        { skeleton->maps.tg_slots, options->endpoints * 2 },
        { skeleton->maps.tg_hosts, options->endpoints },
        { skeleton->maps.tg_workloads, options->workloads },
        { skeleton->maps.tg_sources, options->workloads * 4 },
        { skeleton->maps.tg_tenants, options->tenants },
        { skeleton->maps.tg_rules, options->rules },
        { skeleton->maps.tg_flows, options->flows },
        { skeleton->maps.tg_chosen, options->flows },
        { skeleton->maps.tg_origins, options->flows },
        { skeleton->maps.tg_callers, options->flows },
        { skeleton->maps.tg_events, options->ring_bytes },
    };
    size_t  i;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i].size != 0) {
            bpf_map__set_max_entries(sizes[i].map, sizes[i].size);
        }
    }
}


static int
load(td_mesh_t *mesh, const td_mesh_options_t *options)
{
    int              err;
    struct bpf_map  *map;

    set_sizes(mesh->skeleton, options);

    map = NULL;

    while ((map = bpf_object__next_map(mesh->skeleton->obj, map)) != NULL) {
        err = bpf_map__is_internal(map) ? 0 : pin_map(mesh, map);
        if (err != 0) {
            return err;
        }
    }

    return tg_mesh__load(mesh->skeleton);
}


static void *
map_memory(struct bpf_map *map, size_t size)
{
    void  *memory;

    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

    return memory == MAP_FAILED ? NULL : memory;
}


static size_t
page_round(size_t size)
{
    size_t  page;

    page = (size_t) sysconf(_SC_PAGESIZE);

    return (size + page - 1) / page * page;
}


static int
open_maps(td_mesh_t *mesh)
{
    int              i;
    struct bpf_map  *map;

    for (i = 0; i < TD_MESH_MAPS; i++) {
        map = bpf_object__find_map_by_name(mesh->skeleton->obj, map_names[i]);
        mesh->maps[i] = td_mesh_map_create(map_names[i], bpf_map__fd(map));
        if (mesh->maps[i] == NULL) {
            return -errno;
        }
    }

    mesh->n_slots = bpf_map__max_entries(mesh->skeleton->maps.tg_slots);
    mesh->slots = map_memory(mesh->skeleton->maps.tg_slots,
                             page_round(mesh->n_slots * sizeof(struct tg_slot)));
    mesh->settings = map_memory(mesh->skeleton->maps.tg_settings,
                                page_round(sizeof(struct tg_settings)));

    return mesh->slots == NULL || mesh->settings == NULL ? -errno : 0;
}


static int
on_event(void *data, void *record, size_t size)
{
    td_mesh_t  *mesh;

    mesh = data;

    if (size >= sizeof(struct tg_event) && mesh->handler != NULL) {
        mesh->handler(record, mesh->handler_data);
    }

    return 0;
}


/* What may change while programs run; epoch and levels stay for commit. */
static void
set_settings(td_mesh_t *mesh, const td_mesh_options_t *options)
{
    uint64_t             rate, burst;
    struct tg_settings  *settings;

    rate = options->event_rate ? options->event_rate : EVENT_RATE;
    burst = options->event_burst ? options->event_burst : EVENT_BURST;

    settings = mesh->settings;
    settings->layout = TG_LAYOUT;
    settings->unknown = options->unknown;
    settings->event_interval = 1000000000 / rate;
    settings->event_window = settings->event_interval * (burst - 1);
    mesh->epoch = settings->epoch;
}


static const char *
open_parts(td_mesh_t *mesh, const td_mesh_options_t *options, int *err)
{
    *err = make_pins(mesh);
    if (*err != 0) {
        return "the bpf file system cannot be used";
    }

    mesh->skeleton = tg_mesh__open();
    if (mesh->skeleton == NULL) {
        *err = -errno;
        return "the programs cannot be read";
    }

    *err = load(mesh, options);
    if (*err != 0) {
        return *err == -EPERM ? "CAP_BPF and CAP_NET_ADMIN are missing"
                              : "the kernel does not take the programs or maps";
    }

    *err = open_maps(mesh);
    if (*err != 0) {
        return "the maps cannot be read";
    }

    set_settings(mesh, options);
    td_mesh_load_tenants(mesh);

    *err = td_mesh_load_services(mesh);
    if (*err != 0) {
        return "the slots cannot be read";
    }

    mesh->ring = ring_buffer__new(bpf_map__fd(mesh->skeleton->maps.tg_events),
                                  on_event, mesh, NULL);
    if (mesh->ring == NULL) {
        *err = -errno;
        return "the ring buffer cannot be opened";
    }

    return NULL;
}


td_mesh_t *
td_mesh_open(const td_mesh_options_t *options, const char **error)
{
    int         err;
    td_mesh_t  *mesh;

    mesh = calloc(1, sizeof(*mesh));
    if (mesh == NULL) {
        *error = "no memory";
        return NULL;
    }

    mesh->round = 1;
    snprintf(mesh->pins, sizeof(mesh->pins), "%s", options->pins ? options->pins : PINS);

    *error = open_parts(mesh, options, &err);

    if (*error != NULL) {
        td_mesh_close(mesh);
        errno = -err;
        return NULL;
    }

    return mesh;
}


void
td_mesh_close(td_mesh_t *mesh)
{
    int  i;

    if (mesh == NULL) {
        return;
    }

    ring_buffer__free(mesh->ring);

    for (i = 0; i < TD_MESH_MAPS; i++) {
        td_mesh_map_destroy(mesh->maps[i]);
    }

    if (mesh->slots != NULL) {
        munmap(mesh->slots, page_round(mesh->n_slots * sizeof(struct tg_slot)));
    }

    if (mesh->settings != NULL) {
        munmap(mesh->settings, page_round(sizeof(struct tg_settings)));
    }

    tg_mesh__destroy(mesh->skeleton);
    free(mesh->free.extents);
    free(mesh->leaving.extents);
    free(mesh);
}


void
td_mesh_begin(td_mesh_t *mesh)
{
    int  i;

    mesh->round++;
    mesh->syncing = 1;
    mesh->levels = 0;

    for (i = 0; i < TD_MESH_MAPS; i++) {
        td_mesh_map_round(mesh->maps[i], mesh->round);
    }
}


/*
 * Rules and nets of rules have no mark: they go with their set.  A service's slots
 * go with its row, which td_mesh_settle_slots finds out.
 */
int
td_mesh_commit(td_mesh_t *mesh)
{
    int     i;
    size_t  swept;

    swept = td_mesh_map_used(mesh->maps[TD_MESH_SERVICES]);
    td_mesh_sweep_services(mesh);
    swept -= td_mesh_map_used(mesh->maps[TD_MESH_SERVICES]);

    for (i = TD_MESH_ENDPOINTS; i < TD_MESH_RULES; i++) {
        swept += td_mesh_map_sweep(mesh->maps[i]);
    }

    if (mesh->syncing) {
        mesh->settings->levels = mesh->levels;
        mesh->syncing = 0;
    }

    if (swept > 0) {
        td_mesh_changed(mesh);
    }

    /* From here on programs judge. */
    if (mesh->settings->epoch == 0) {
        mesh->epoch = mesh->epoch ? mesh->epoch : 1;
        __atomic_store_n(&mesh->settings->epoch, mesh->epoch, __ATOMIC_RELEASE);
    }

    return td_mesh_settle(mesh);
}


/* Programs run inside RCU's read sections, which this waits for to end. */
void
td_mesh_grace(void)
{
    struct timespec  long_enough = { .tv_nsec = 100 * 1000 * 1000 };

    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0) {
        /* Not on kernels with nohz_full; no program takes so long. */
        nanosleep(&long_enough, NULL);
    }
}


/* Meters of services that have no limit any more. */
static void
settle_meters(td_mesh_t *mesh)
{
    int       fd, more;
    uint32_t  key, next;

    fd = bpf_map__fd(mesh->skeleton->maps.tg_meters);
    more = bpf_map_get_next_key(fd, NULL, &next) == 0;

    while (more) {
        key = next;
        more = bpf_map_get_next_key(fd, &key, &next) == 0;

        if (td_mesh_map_get(mesh->maps[TD_MESH_LIMITS], &key) == NULL) {
            bpf_map_delete_elem(fd, &key);
        }
    }
}


int
td_mesh_settle(td_mesh_t *mesh)
{
    td_mesh_grace();
    settle_meters(mesh);
    td_mesh_settle_slots(mesh);
    td_mesh_settle_rules(mesh);

    return 0;
}


int
td_mesh_events_fd(const td_mesh_t *mesh)
{
    return ring_buffer__epoll_fd(mesh->ring);
}


int
td_mesh_poll(td_mesh_t *mesh, int timeout, td_mesh_event_pt handler, void *data)
{
    int  n;

    mesh->handler = handler;
    mesh->handler_data = data;

    n = ring_buffer__consume(mesh->ring);
    if (n != 0 || timeout == 0) {
        return n;
    }

    /* Records that came meanwhile may not have woken anybody. */
    n = ring_buffer__poll(mesh->ring, timeout);

    return n != 0 ? n : ring_buffer__consume(mesh->ring);
}


int
td_mesh_counters(const td_mesh_t *mesh, uint64_t counters[TG_COUNTERS])
{
    int        fd, cpu, cpus, err;
    uint32_t   i;
    uint64_t  *values;

    cpus = libbpf_num_possible_cpus();
    if (cpus < 0) {
        return cpus;
    }

    values = calloc((size_t) cpus, sizeof(*values));
    if (values == NULL) {
        return -ENOMEM;
    }

    err = 0;
    fd = bpf_map__fd(mesh->skeleton->maps.tg_counters);

    for (i = 0; i < TG_COUNTERS && err == 0; i++) {
        err = bpf_map_lookup_elem(fd, &i, values);

        counters[i] = 0;
        for (cpu = 0; cpu < cpus; cpu++) {
            counters[i] += values[cpu];
        }
    }

    free(values);

    return err;
}


const char *
td_mesh_counter_name(unsigned int number)
{
#define TD_REASON(value, name, text)  [value] = #name,
#define TD_COUNTER(name)              [name] = #name

    static const char *const  names[TG_COUNTERS] = {
        TG_REASONS(TD_REASON)
        TD_COUNTER(TG_LOST_RING),
        TD_COUNTER(TG_LOST_SAMPLED),
        TD_COUNTER(TG_LOST_DENY_SAMPLED),
        TD_COUNTER(TG_FULL_SOCKETS),
        TD_COUNTER(TG_FULL_FLOWS),
        TD_COUNTER(TG_FULL_METERS),
        TD_COUNTER(TG_FULL_ORIGINS),
        TD_COUNTER(TG_FULL_BUCKETS),
        TD_COUNTER(TG_TORN),
    };

#undef TD_REASON
#undef TD_COUNTER

    return number < TG_COUNTERS ? names[number] : NULL;
}


const char *
td_mesh_reason(uint32_t reason)
{
    size_t  i;

    static const struct {
        uint32_t     number;
        const char  *text;
    } reasons[] = {
#define TD_REASON(number, name, text)  { number, text },
        TG_REASONS(TD_REASON)
#undef TD_REASON
    };

    for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].number == reason) {
            return reasons[i].text;
        }
    }

    return NULL;
}
