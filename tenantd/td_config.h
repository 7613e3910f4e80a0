/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Configuration: one table of options (td_options.c), filled from defaults, the
 * INI file, the environment (TIERGATE_<SECTION>_<KEY>), and --set, in this order.
 * docs/reference/configuration.md describes each; a test compares it.
 */

#ifndef TD_CONFIG_H
#define TD_CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tg_error.h"
#include "td_cidr.h"

typedef struct {
    char   **item;
    size_t   n;
} td_list_t;

typedef struct {
    td_cidr_t  *item;
    size_t      n;
} td_cidrs_t;

typedef struct {
    long        first;
    long        last;
} td_range_t;

typedef enum {
    TD_DRIVER_NONE,
    TD_DRIVER_PROCESS
} td_driver_e;

typedef struct {
    struct {
        char      *socket;              /* "": none */
        long       socket_mode;
        char      *socket_group;        /* "": leave it */
        td_list_t  socket_admin_users;
        td_list_t  socket_gateway_users;
        td_list_t  addresses;
        int        insecure_listen;
        td_list_t  tls_addresses;
        char      *tls_certificate;
        char      *tls_key;
        char      *tls_client_ca;
        td_list_t  tls_admin_subjects;
        td_list_t  tls_gateway_subjects;
    } listen;

    struct {
        long       max_connections;
        long       max_header;
        long       max_body;
        long       import_max_body;
        long       imports;
        long       request_timeout;     /* all times: milliseconds */
        long       import_timeout;
        long       keepalive_timeout;
        long       drain_timeout;
        char      *openapi;
    } http;

    struct {
        char      *conninfo;
        char      *role;
        long       connections;
        long       writers;
        long       queue;
        long       connect_timeout;
        long       statement_timeout;
        char      *sql_dir;
    } database;

    struct {
        long       ring_lines;
        long       ring_size;
        long       list_connections;
        long       max_pending;
        long       stall_timeout;
        long       recheck_interval;
    } watch;

    struct {
        int        allow_http;
        td_cidrs_t allow_cidrs;
        char      *ca_file;
        long       connect_timeout;
        long       timeout;
        long       max_size;
        long       parallel;
        long       poll_interval;
    } jwks;

    struct {
        char      *key_file;            /* "": HMAC secrets cannot be sealed */
    } secrets;

    struct {
        long       driver;              /* td_driver_e */
        char      *node;                /* "": the host's name */
        char      *directory;
        char      *nginx;
        char      *modules;
        char      *plugin_modules;
        char      *template;            /* "": the one built in */
        char      *user;
        td_range_t users;               /* of one instance each; 0: none */
        char      *address;
        td_range_t ports;
        char      *advertise;           /* "": address */
        char      *source;              /* "": the unix socket */
        td_list_t  trusted;             /* networks, as text */
        long       workers;
        long       start_timeout;
        long       drain_timeout;
        long       backoff_min;
        long       backoff_max;
        char      *cgroup;              /* "": none */
        long       poll;
    } provisioner;

    struct {
        char      *node;                /* "": the host's name */
        char      *tenantd;             /* unix:PATH or https://HOST:PORT */
        char      *ca;                  /* "": the system's */
        char      *certificate;         /* "": none is shown */
        char      *key;
        char      *token_file;          /* "": no token */
        char      *cgroup;              /* "": the cgroup2 mount */
        char      *workload_cgroup;
        char      *pins;
        char      *socket;              /* "": no tenantd exec */
        long       socket_mode;
        char      *exec_group;          /* "": root alone */
        long       exec_limit;
        char      *state;
        char      *metrics;             /* "": none */
        long       pairs;
        long       unknown;             /* enum tg_unknown */
        long       event_rate;
        long       event_burst;
        long       services;            /* sizes of maps */
        long       endpoints;
        long       workloads;
        long       tenants;
        long       rules;
        long       flows;
        long       ring;
        int        uplink;
        long       uplink_queue;
        long       checks;
    } agent;

    struct {
        long       level;
        int        access;
    } log;

    char         **text;                /* each option as it was written */
} td_config_t;

typedef struct {
    /* Parses value into the field.  Returns NULL, or what is wrong with it. */
    const char *(*parse)(const char *value, void *field);
    void       (*clear)(void *field);   /* NULL: nothing to free */
    int          list;                  /* may be given in several lines */
} td_option_type_t;

typedef struct {
    const char              *section;
    const char              *key;
    const char              *fallback;
    const td_option_type_t  *type;
    size_t                   offset;
    int                      reloadable;    /* SIGHUP makes it effective */
    const char              *help;
} td_option_t;

extern const td_option_t  td_options[];
extern const size_t       td_options_n;

/*
 * path may be NULL: no file.  overrides: n texts "section.key=value".  Returns
 * NULL with err set: the message names file and line, variable or override.
 */
td_config_t *td_config_load(const char *path, char *const *overrides, size_t n,
    tg_error_t *err);

void td_config_destroy(td_config_t *config);

/*
 * For SIGHUP: moves the reloadable options of fresh into config and destroys
 * fresh.  Calls changed for each option whose text differs, with whether it has
 * become effective.
 */
void td_config_reload(td_config_t *config, td_config_t *fresh,
    void (*changed)(const td_option_t *option, int effective));

/* Whether list holds text. */
int td_list_has(const td_list_t *list, const char *text);

#endif /* TD_CONFIG_H */
