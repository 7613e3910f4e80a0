/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Members of a mesh object, each read and checked.  Functions that return int: 0, or
 * -1 with err.  A member that is absent, or null, leaves what is there where the
 * text says "optional".
 */

#ifndef TD_AGENT_READ_H
#define TD_AGENT_READ_H

#include <jansson.h>

#include "td_agent_document.h"

/* Sets err for a member; returns -1. */
int td_read_fail(tg_error_t *err, const char *key, const char *what);

/* Zeroed, at least one; lives as long as doc.  NULL with err. */
void *td_read_alloc(td_doc_t *doc, size_t n, size_t size, tg_error_t *err);
void td_read_free(td_doc_t *doc);

/* Optional. */
int td_read_int(json_t *object, const char *key, json_int_t low, json_int_t high,
    json_int_t *value, tg_error_t *err);
int td_read_flag(json_t *object, const char *key, int *value, tg_error_t *err);
int td_read_text(td_doc_t *doc, json_t *object, const char *key, size_t max,
    const char **text, tg_error_t *err);
int td_read_nets(td_doc_t *doc, json_t *object, const char *key, int hosts,
    td_doc_nets_t *nets, tg_error_t *err);
int td_read_protocol(json_t *object, uint8_t fallback, uint8_t *proto,
    tg_error_t *err);

/* Must be there.  NULL: err is set. */
const char *td_read_name(td_doc_t *doc, json_t *object, const char *key,
    tg_error_t *err);
int td_read_number(json_t *object, const char *key, uint32_t *number,
    tg_error_t *err);
/* tenant_number, and the service's under key. */
int td_read_who(json_t *object, const char *key, struct tg_who *who, tg_error_t *err);

/* Of a value; key is for err. */
int td_read_number_value(json_t *value, const char *key, uint32_t *number,
    tg_error_t *err);
int td_read_port_value(json_t *value, const char *key, uint16_t *port,
    tg_error_t *err);
int td_read_net_value(json_t *value, const char *key, td_doc_net_t *net,
    tg_error_t *err);

/* td_agent_document_service.c */
int td_doc_read_service(td_doc_t *doc, json_t *object, tg_error_t *err);

#endif /* TD_AGENT_READ_H */
