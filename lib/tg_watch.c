/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "tg_json.h"
#include "tg_watch.h"


#define TG_WATCH_MAX_INTEGER  ((1LL << 53) - 1)


static const char *const  tg_watch_types[] = { "", "PUT", "DELETE", "BOOKMARK" };
static const char *const  tg_watch_kinds[] = { "", "tenant", "issuer" };

#define tg_count(a)  (sizeof(a) / sizeof((a)[0]))


static unsigned
tg_watch_lookup(const char *const *names, unsigned n, const char *name,
    size_t len)
{
    for (unsigned i = 1; i < n; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) {
            return i;
        }
    }

    return 0;
}


tg_watch_type_e
tg_watch_type(const char *name, size_t len)
{
    return (tg_watch_type_e) tg_watch_lookup(tg_watch_types,
                                             tg_count(tg_watch_types), name,
                                             len);
}


int
tg_watch_kind(const char *name, size_t len)
{
    return (int) tg_watch_lookup(tg_watch_kinds, tg_count(tg_watch_kinds), name,
                                 len);
}


const char *
tg_watch_type_name(tg_watch_type_e type)
{
    return tg_watch_types[type];
}


const char *
tg_watch_kind_name(int kind)
{
    return tg_watch_kinds[kind];
}


/* A DNS label, as tenants and issuers are named. */
static int
tg_watch_is_name(const char *s, size_t len)
{
    if (len == 0 || len > TG_MAX_NAME || s[0] == '-' || s[len - 1] == '-') {
        return 0;
    }

    for (size_t i = 0; i < len; i++) {
        if ((s[i] < 'a' || s[i] > 'z') && (s[i] < '0' || s[i] > '9')
            && s[i] != '-')
        {
            return 0;
        }
    }

    return 1;
}


/* An integer member from min to 2^53 - 1. */
static int
tg_watch_integer(const json_t *object, const char *member, json_int_t min,
    uint64_t *n, const char *prefix, tg_error_t *err)
{
    json_int_t     value;
    const json_t  *json;

    json = json_object_get(object, member);
    value = json_is_integer(json) ? json_integer_value(json) : -1;

    if (value < min || value > TG_WATCH_MAX_INTEGER) {
        tg_error_set(err, "", "\"%s\" must be an integer from %d to 2^53-1",
                     member, (int) min);
        tg_error_prefix(err, "%s/%s", prefix, member);
        return -1;
    }

    *n = (uint64_t) value;
    return 0;
}


static int
tg_watch_envelope_type(tg_watch_event_t *event, tg_error_t *err)
{
    const json_t  *json;

    json = json_object_get(event->line, "type");

    if (json_is_string(json)) {
        event->type = tg_watch_type(json_string_value(json),
                                    json_string_length(json));
    }

    if (event->type == 0) {
        tg_error_set(err, "/type", "\"type\" must be PUT, DELETE or BOOKMARK");
        return -1;
    }

    return 0;
}


/* kind, name, id: which object a PUT or DELETE is about. */
static int
tg_watch_envelope_object(tg_watch_event_t *event, tg_error_t *err)
{
    size_t         len;
    const char    *name;
    const json_t  *json;

    json = json_object_get(event->line, "kind");

    if (!json_is_string(json)) {
        tg_error_set(err, "/kind", "\"kind\" must be a string");
        return -1;
    }

    event->kind = tg_watch_kind(json_string_value(json),
                                json_string_length(json));

    if (event->kind == 0) {
        return 0;   /* a newer tenantd's: how it is named is not ours to judge */
    }

    json = json_object_get(event->line, "name");
    name = json_string_value(json);
    len = json_string_length(json);

    if (name == NULL || !tg_watch_is_name(name, len)) {
        tg_error_set(err, "/name", "\"name\" must be a DNS label");
        return -1;
    }

    memcpy(event->name, name, len + 1);

    return tg_watch_integer(event->line, "id", 1, &event->id, "", err);
}


/* The object must be the one that the envelope names. */
static int
tg_watch_object(tg_watch_event_t *event, tg_error_t *err)
{
    uint64_t       id, revision;
    const char    *name;
    const json_t  *object;

    event->object = json_object_get(event->line, "object");
    object = event->object;

    if (!json_is_object(object)) {
        tg_error_set(err, "/object", "\"object\" must be an object");
        return -1;
    }

    if (tg_watch_integer(object, "id", 1, &id, "/object", err) != 0
        || tg_watch_integer(object, "revision", 1, &revision, "/object", err)
           != 0)
    {
        return -1;
    }

    name = json_string_value(json_object_get(object, "name"));

    if (id != event->id || name == NULL || strcmp(name, event->name) != 0) {
        tg_error_set(err, "/object",
                     "\"object\" is another than \"name\" and \"id\" say");
        return -1;
    }

    return 0;
}


static int
tg_watch_bookmark(tg_watch_event_t *event, tg_error_t *err)
{
    const json_t  *json;

    json = json_object_get(event->line, "complete");

    if (json != NULL && !json_is_boolean(json)) {
        tg_error_set(err, "/complete", "\"complete\" must be true or false");
        return -1;
    }

    event->complete = json_is_true(json);
    return 0;
}


tg_watch_status_e
tg_watch_parse(const char *line, size_t len, tg_watch_event_t *event,
    tg_error_t *err)
{
    int           bookmark;
    json_error_t  error;

    memset(event, 0, sizeof(tg_watch_event_t));

    event->line = tg_json_load(line, len, JSON_REJECT_DUPLICATES, &error);

    if (!json_is_object(event->line)) {
        tg_error_set(err, "", "not a JSON object: %s",
                     event->line ? "another value" : error.text);
        return TG_WATCH_BAD_LINE;
    }

    if (tg_watch_envelope_type(event, err) != 0) {
        return TG_WATCH_BAD_LINE;
    }

    bookmark = (event->type == TG_WATCH_BOOKMARK);

    if ((!bookmark && tg_watch_envelope_object(event, err) != 0)
        || tg_watch_integer(event->line, "revision", !bookmark,
                            &event->revision, "", err) != 0
        || (bookmark && tg_watch_bookmark(event, err) != 0))
    {
        return TG_WATCH_BAD_LINE;
    }

    if (event->type == TG_WATCH_PUT && event->kind != 0
        && tg_watch_object(event, err) != 0)
    {
        return TG_WATCH_BAD_OBJECT;
    }

    return TG_WATCH_OK;
}


void
tg_watch_release(tg_watch_event_t *event)
{
    json_decref(event->line);
    event->line = NULL;
    event->object = NULL;
}


char *
tg_watch_suspension(const tg_watch_event_t *event)
{
    char        *text;
    json_t      *line;
    const char  *state;

    state = json_string_value(json_object_get(event->object, "state"));

    if (event->type != TG_WATCH_PUT || event->kind != TG_KIND_TENANT
        || state == NULL || strcmp(state, "suspended") != 0)
    {
        return NULL;
    }

    line = json_pack("{s:s, s:s, s:s, s:I, s:I, s:{s:s, s:I, s:O, s:s, s:O*,"
                     "s:[], s:[], s:[], s:[], s:[]}}",
                     "type", "PUT", "kind", "tenant", "name", event->name,
                     "id", (json_int_t) event->id,
                     "revision", (json_int_t) event->revision, "object",
                     "name", event->name, "id", (json_int_t) event->id,
                     "revision", json_object_get(event->object, "revision"),
                     "state", state,
                     "hosts", json_object_get(event->object, "hosts"),
                     "issuers", "api_keys", "upstreams", "routes", "quotas");

    text = line != NULL ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);

    return text;
}
