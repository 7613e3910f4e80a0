/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_agent_read.h"
#include "td_cidr.h"


/* What belongs to an object, the last first. */
typedef struct td_read_piece_s {
    struct td_read_piece_s  *next;
    uint64_t                 data[];
} td_read_piece_t;


int
td_read_fail(tg_error_t *err, const char *key, const char *what)
{
    char  pointer[80];

    snprintf(pointer, sizeof(pointer), "/%.70s", key);
    tg_error_set(err, pointer, "\"%s\" %s", key, what);

    return -1;
}


void *
td_read_alloc(td_doc_t *doc, size_t n, size_t size, tg_error_t *err)
{
    td_read_piece_t  *piece;

    piece = calloc(1, sizeof(td_read_piece_t) + (n + 1) * size);
    if (piece == NULL) {
        tg_error_set(err, "", "out of memory");
        return NULL;
    }

    piece->next = doc->memory;
    doc->memory = piece;

    return piece->data;
}


void
td_read_free(td_doc_t *doc)
{
    td_read_piece_t  *piece;

    while ((piece = doc->memory) != NULL) {
        doc->memory = piece->next;
        free(piece);
    }
}


/* NULL for a member that is null, too. */
static json_t *
td_read_get(json_t *object, const char *key)
{
    json_t  *value;

    value = json_object_get(object, key);

    return json_is_null(value) ? NULL : value;
}


int
td_read_int(json_t *object, const char *key, json_int_t low, json_int_t high,
    json_int_t *value, tg_error_t *err)
{
    json_t  *member;

    member = td_read_get(object, key);
    if (member == NULL) {
        return 0;
    }

    if (!json_is_integer(member) || json_integer_value(member) < low
        || json_integer_value(member) > high)
    {
        return td_read_fail(err, key, "is not a number in range");
    }

    *value = json_integer_value(member);

    return 0;
}


int
td_read_flag(json_t *object, const char *key, int *value, tg_error_t *err)
{
    json_t  *member;

    member = td_read_get(object, key);
    if (member == NULL) {
        return 0;
    }

    if (!json_is_boolean(member)) {
        return td_read_fail(err, key, "must be true or false");
    }

    *value = json_is_true(member);

    return 0;
}


int
td_read_text(td_doc_t *doc, json_t *object, const char *key, size_t max,
    const char **text, tg_error_t *err)
{
    char    *copy;
    json_t  *member;
    size_t   len;

    *text = NULL;
    member = td_read_get(object, key);
    if (member == NULL) {
        return 0;
    }

    len = json_string_length(member);

    if (!json_is_string(member) || len > max
        || strlen(json_string_value(member)) != len)
    {
        return td_read_fail(err, key, "is no text, or too long");
    }

    copy = td_read_alloc(doc, len, 1, err);
    if (copy == NULL) {
        return -1;
    }

    memcpy(copy, json_string_value(member), len);
    *text = copy;

    return 0;
}


int
td_doc_is_name(const char *name)
{
    size_t  len;

    len = strlen(name);

    return len > 0 && len <= TD_DOC_NAME && name[0] != '.' && name[0] != '-'
           && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-._") == len;
}


const char *
td_read_name(td_doc_t *doc, json_t *object, const char *key, tg_error_t *err)
{
    const char  *name;

    if (td_read_text(doc, object, key, TD_DOC_NAME, &name, err) != 0) {
        return NULL;
    }

    if (name == NULL || !td_doc_is_name(name)) {
        td_read_fail(err, key, "must be a name");
        return NULL;
    }

    return name;
}


int
td_read_number_value(json_t *value, const char *key, uint32_t *number,
    tg_error_t *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 1
        || json_integer_value(value) > TD_DOC_NUMBER)
    {
        return td_read_fail(err, key, "must be a number that the registry gave out");
    }

    *number = (uint32_t) json_integer_value(value);

    return 0;
}


int
td_read_number(json_t *object, const char *key, uint32_t *number, tg_error_t *err)
{
    return td_read_number_value(json_object_get(object, key), key, number, err);
}


int
td_read_who(json_t *object, const char *key, struct tg_who *who, tg_error_t *err)
{
    return td_read_number(object, "tenant_number", &who->tenant, err) != 0
           || td_read_number(object, key, &who->service, err) != 0 ? -1 : 0;
}


int
td_read_port_value(json_t *value, const char *key, uint16_t *port, tg_error_t *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 1
        || json_integer_value(value) > 65535)
    {
        return td_read_fail(err, key, "must be a port");
    }

    *port = (uint16_t) json_integer_value(value);

    return 0;
}


int
td_read_net_value(json_t *value, const char *key, td_doc_net_t *net, tg_error_t *err)
{
    td_cidr_t  cidr;

    if (!json_is_string(value) || td_cidr_parse(json_string_value(value), &cidr) != 0) {
        return td_read_fail(err, key, "must be addresses or networks");
    }

    memcpy(&net->addr, cidr.address, sizeof(net->addr));
    net->prefix = cidr.bits;

    return 0;
}


int
td_read_nets(td_doc_t *doc, json_t *object, const char *key, int hosts,
    td_doc_nets_t *nets, tg_error_t *err)
{
    size_t   i;
    json_t  *member;

    member = td_read_get(object, key);
    if (member == NULL) {
        return 0;
    }

    if (!json_is_array(member) || json_array_size(member) > TD_DOC_ADDRESSES) {
        return td_read_fail(err, key, "must be at most 256 addresses");
    }

    nets->item = td_read_alloc(doc, json_array_size(member), sizeof(td_doc_net_t), err);
    if (nets->item == NULL) {
        return -1;
    }

    for (i = 0; i < json_array_size(member); i++) {
        if (td_read_net_value(json_array_get(member, i), key, &nets->item[i], err)) {
            return -1;
        }

        if (hosts && nets->item[i].prefix != 128) {
            return td_read_fail(err, key, "must be addresses, not networks");
        }
    }

    nets->n = i;

    return 0;
}


int
td_read_protocol(json_t *object, uint8_t fallback, uint8_t *proto, tg_error_t *err)
{
    json_t      *member;
    const char  *name;

    member = td_read_get(object, "protocol");
    name = json_string_value(member);
    *proto = fallback;

    if (member == NULL) {
        return 0;
    }

    if (name != NULL && strcmp(name, "tcp") == 0) {
        *proto = IPPROTO_TCP;
        return 0;
    }

    if (name != NULL && strcmp(name, "udp") == 0) {
        *proto = IPPROTO_UDP;
        return 0;
    }

    return td_read_fail(err, "protocol", "must be tcp or udp");
}


int
td_doc_address(const char *text, struct tg_addr *addr)
{
    td_cidr_t  cidr;

    if (strchr(text, '/') != NULL || td_cidr_parse(text, &cidr) != 0) {
        return -1;
    }

    memcpy(addr, cidr.address, sizeof(*addr));

    return 0;
}


int
td_doc_is_ipv4(const struct tg_addr *addr)
{
    return addr->w[0] == 0 && addr->w[1] == 0 && addr->w[2] == htonl(0xffff);
}


const char *
td_doc_address_text(const struct tg_addr *addr, char *text)
{
    text[0] = '\0';

    if (td_doc_is_ipv4(addr)) {
        inet_ntop(AF_INET, &addr->w[3], text, INET6_ADDRSTRLEN);
    } else {
        inet_ntop(AF_INET6, addr, text, INET6_ADDRSTRLEN);
    }

    return text;
}
