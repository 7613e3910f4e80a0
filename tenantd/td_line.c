/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_line.h"
#include "tg_text.h"


static const char *const  td_line_kinds[] = {
    [TD_KIND_ISSUER] = "issuer",
    [TD_KIND_TENANT] = "tenant",
    [TD_KIND_MESH_NODE] = "mesh_node",
    [TD_KIND_MESH_AGENT] = "mesh_agent",
    [TD_KIND_MESH_TENANT] = "mesh_tenant",
    [TD_KIND_MESH_WORKLOAD] = "mesh_workload",
    [TD_KIND_MESH_SERVICE] = "mesh_service",
};

#define TD_LINE_KINDS  (sizeof(td_line_kinds) / sizeof(td_line_kinds[0]))


static td_line_kind_e
td_line_kind(const char *name)
{
    size_t  i;

    for (i = 0; i < TD_LINE_KINDS; i++) {
        if (strcmp(td_line_kinds[i], name) == 0) {
            return (td_line_kind_e) i;
        }
    }

    return TD_KIND_TENANT;
}


static void
td_line_write(tg_text_t *text, const td_line_source_t *source)
{
    tg_text_printf(text, "{\"type\":\"%s\",\"kind\":\"%s\",\"name\":",
                   source->document != NULL ? "PUT" : "DELETE", source->kind);
    tg_text_json(text, source->name, strlen(source->name));
    tg_text_printf(text, ",\"id\":%lld,\"revision\":%lld",
                   (long long) source->id, (long long) source->revision);

    if (source->document != NULL) {
        tg_text_str(text, ",\"object\":");
        tg_text_str(text, source->document);
    }

    tg_text_str(text, "}\n");
}


static td_line_t *
td_line_create_form(const td_line_source_t *source)
{
    char       *newline, *end;
    size_t      name_len;
    tg_text_t   text;
    td_line_t  *line;

    tg_text_init(&text);
    td_line_write(&text, source);
    name_len = strlen(source->name) + 1;

    line = text.failed || text.len > TD_LINE_MAX ? NULL
           : malloc(sizeof(td_line_t) + text.len + name_len);

    if (line == NULL) {
        tg_text_free(&text);
        return NULL;
    }

    line->refs = 1;
    line->kind = td_line_kind(source->kind);
    line->put = source->document != NULL;
    line->shared = source->shared;
    line->id = source->id;
    line->revision = source->revision;
    line->object_revision = source->object_revision;
    line->mesh_tenant = source->mesh_tenant;
    line->removal = NULL;
    line->forward = NULL;
    line->len = text.len;
    memcpy(line->data, text.data, text.len);
    line->name = line->data + text.len;
    memcpy(line->name, source->name, name_len);
    tg_text_free(&text);

    /* outside of strings a newline is but white space, and inside there is none */
    end = line->data + line->len - 1;
    newline = line->data;
    while ((newline = memchr(newline, '\n', (size_t) (end - newline))) != NULL) {
        *newline = ' ';
    }

    return line;
}


td_line_t *
td_line_create(const td_line_source_t *source)
{
    td_line_t         *line;
    td_line_source_t   shared;

    line = td_line_create_form(source);

    if (line == NULL || source->document == NULL
        || source->shared_document == NULL)
    {
        return line;
    }

    shared = *source;
    shared.document = source->shared_document;
    line->forward = td_line_create_form(&shared);

    if (line->forward == NULL) {
        td_line_unref(line);
        return NULL;
    }

    return line;
}


td_line_t *
td_line_ref(td_line_t *line)
{
    line->refs++;

    return line;
}


void
td_line_unref(td_line_t *line)
{
    if (--line->refs == 0) {
        if (line->removal != NULL) {
            td_line_unref(line->removal);
        }
        if (line->forward != NULL) {
            td_line_unref(line->forward);
        }
        free(line);
    }
}


size_t
td_line_size(const td_line_t *line)
{
    return line->len + (line->forward != NULL ? line->forward->len : 0);
}


static void
td_line_release(const void *data, size_t len, void *line)
{
    (void) data;
    (void) len;

    td_line_unref(line);
}


void
td_line_add(td_line_t *line, struct evbuffer *buffer)
{
    if (evbuffer_add_reference(buffer, line->data, line->len, td_line_release,
                               line) == 0)
    {
        td_line_ref(line);
    }
}


static td_line_t *
td_line_removal(td_line_t *line)
{
    td_line_source_t  source = { "tenant", line->name, line->id, line->revision,
                                 line->object_revision, 0, NULL, NULL, 0 };

    if (line->removal == NULL) {
        line->removal = td_line_create(&source);
    }

    return line->removal;
}


static int
td_view_compare(const void *a, const void *b)
{
    int64_t  x = *(const int64_t *) a, y = *(const int64_t *) b;

    return (x > y) - (x < y);
}


/* Whether an agent gets this line of the mesh. */
static int
td_line_is_for_agent(const td_line_t *line, const td_view_t *view)
{
    if (line->kind == TD_KIND_MESH_AGENT) {
        return line->id == view->id;
    }

    /* a node that is not, or no longer, there sees nothing */
    if (line->kind == TD_KIND_MESH_NODE || view->all) {
        return view->id != 0;
    }

    return bsearch(&line->mesh_tenant, view->numbers, view->n_numbers,
                   sizeof(int64_t), td_view_compare) != NULL;
}


td_line_t *
td_line_seen(td_line_t *line, const td_view_t *view)
{
    if (line->kind >= TD_KIND_MESH_NODE) {
        return view->kind == TD_VIEW_AGENT && td_line_is_for_agent(line, view)
               ? line : NULL;
    }

    if (view->kind == TD_VIEW_AGENT) {
        return NULL;
    }

    if (line->kind == TD_KIND_ISSUER) {
        return line;
    }

    if (view->kind == TD_VIEW_DEDICATED) {
        return line->id == view->id ? line : NULL;
    }

    if (line->put && !line->shared) {
        return td_line_removal(line);
    }

    return line->forward != NULL ? line->forward : line;
}


/* A copy of the document in a PUT. */
static char *
td_line_document(const td_line_t *line)
{
    const char  *object;

    object = strstr(line->data, ",\"object\":") + strlen(",\"object\":");

    return strndup(object, (size_t) (line->data + line->len - object) - 2);
}


td_line_t *
td_line_after(const td_line_t *line, int64_t at)
{
    td_line_t         *fresh;
    char              *document, *shared;
    td_line_source_t   source = { td_line_kinds[line->kind], line->name,
                                  line->id, at + 1, line->object_revision,
                                  line->shared, NULL, NULL,
                                  line->mesh_tenant };

    if (line->object_revision <= at) {
        return NULL;
    }

    document = line->put ? td_line_document(line) : NULL;
    shared = line->forward != NULL ? td_line_document(line->forward) : NULL;

    if ((line->put && document == NULL)
        || (line->forward != NULL && shared == NULL))
    {
        free(document);
        free(shared);
        return NULL;
    }

    source.document = document;
    source.shared_document = shared;
    fresh = td_line_create(&source);
    free(document);
    free(shared);

    return fresh;
}


void
td_line_bookmark(struct evbuffer *buffer, int64_t revision, int complete)
{
    evbuffer_add_printf(buffer, "{\"type\":\"BOOKMARK\",\"revision\":%lld%s}\n",
                        (long long) revision,
                        complete ? ",\"complete\":true" : "");
}


int
td_view_parse(td_view_t *view, const char *kind, int64_t id,
    const char *numbers)
{
    char    *end;
    size_t   i;

    memset(view, 0, sizeof(td_view_t));

    if (strcmp(kind, "agent") != 0) {
        view->kind = strcmp(kind, "dedicated") == 0 ? TD_VIEW_DEDICATED
                                                    : TD_VIEW_SHARED;
        view->id = view->kind == TD_VIEW_DEDICATED ? id : 0;
        return 0;
    }

    view->kind = TD_VIEW_AGENT;

    if (numbers == NULL) {
        view->id = id;
        view->all = 1;
        return 0;
    }

    /* each number has a digit and what follows it */
    view->numbers = calloc(strlen(numbers) / 2 + 1, sizeof(int64_t));
    if (view->numbers == NULL) {
        return -1;
    }

    view->id = id;
    i = strcspn(numbers, "0123456789");

    while (numbers[i] != '\0') {
        view->numbers[view->n_numbers++] = strtoll(numbers + i, &end, 10);
        i = (size_t) (end - numbers);
        i += strcspn(numbers + i, "0123456789");
    }

    qsort(view->numbers, view->n_numbers, sizeof(int64_t), td_view_compare);

    return 0;
}


void
td_view_free(td_view_t *view)
{
    free(view->numbers);
    memset(view, 0, sizeof(td_view_t));
}


int
td_view_copy(td_view_t *to, const td_view_t *from)
{
    *to = *from;

    if (from->numbers == NULL) {
        return 0;
    }

    to->numbers = calloc(from->n_numbers + 1, sizeof(int64_t));

    if (to->numbers == NULL) {
        to->n_numbers = 0;
        return -1;
    }

    memcpy(to->numbers, from->numbers, from->n_numbers * sizeof(int64_t));

    return 0;
}


int
td_view_equal(const td_view_t *a, const td_view_t *b)
{
    return a->kind == b->kind && a->id == b->id && a->all == b->all
           && a->n_numbers == b->n_numbers
           && (a->n_numbers == 0
               || memcmp(a->numbers, b->numbers,
                         a->n_numbers * sizeof(int64_t)) == 0);
}
