/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Changing the headers of a request on its way to the upstream.
 *
 * nginx keeps pointers from r->headers_in into the elements of the header list,
 * so an element cannot be moved.  A removal therefore copies what stays into a
 * new list; the old elements live on in the pool for those pointers.
 */

#include "ngx_http_tenant.h"


/* Room for the headers that are added later, so that they need no new part. */
#define NGX_HTTP_TENANT_SPARE_HEADERS  4


/* Names to remove, prepared for comparing them with each header. */
typedef struct {
    const u_char  *data;        /* lower case */
    size_t         len;         /* without the star */
    ngx_uint_t     prefix;      /* 1: a name that begins so, whatever follows */
} ngx_http_tenant_pattern_t;


/* A name that ends in "*" matches every header that starts so. */
static void
ngx_http_tenant_pattern(ngx_http_tenant_pattern_t *pattern,
    const ngx_str_t *name)
{
    pattern->data = name->data;
    pattern->len = name->len;
    pattern->prefix = name->len && name->data[name->len - 1] == '*';
    pattern->len -= pattern->prefix;
}


/* Of names in lower case; "_" and "-" are the same. */
static ngx_inline ngx_uint_t
ngx_http_tenant_same(u_char a, u_char b)
{
    return a == b || (a == '_' && b == '-') || (a == '-' && b == '_');
}


static ngx_inline ngx_uint_t
ngx_http_tenant_header_matches(const ngx_table_elt_t *header,
    const ngx_http_tenant_pattern_t *pattern)
{
    size_t  i;

    if (header->key.len < pattern->len
        || (!pattern->prefix && header->key.len != pattern->len))
    {
        return 0;
    }

    for (i = 0; i < pattern->len; i++) {
        if (!ngx_http_tenant_same(header->lowcase_key[i], pattern->data[i])) {
            return 0;
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_tenant_count_headers(const ngx_list_t *list,
    const ngx_http_tenant_pattern_t *pattern, ngx_uint_t *total)
{
    ngx_uint_t              i, matching;
    const ngx_list_part_t  *part;
    const ngx_table_elt_t  *header;

    matching = 0;
    *total = 0;

    for (part = &list->part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            matching += ngx_http_tenant_header_matches(&header[i], pattern);
        }

        *total += part->nelts;
    }

    return matching;
}


ngx_int_t
ngx_http_tenant_remove_header(ngx_http_request_t *r, const ngx_str_t *name)
{
    ngx_list_t       *list;
    ngx_uint_t        i, total, matching;
    ngx_list_part_t   old, *part;
    ngx_table_elt_t  *header, *copy;

    ngx_http_tenant_pattern_t  pattern;

    ngx_http_tenant_pattern(&pattern, name);

    matching = ngx_http_tenant_count_headers(&r->headers_in.headers, &pattern,
                                             &total);
    if (matching == 0) {
        return NGX_OK;
    }

    list = &r->headers_in.headers;
    old = list->part;

    total += NGX_HTTP_TENANT_SPARE_HEADERS - matching;

    list->part.elts = ngx_http_tenant_alloc(r, ngx_http_tenant_get_ctx(r),
                                            total * sizeof(ngx_table_elt_t));
    if (list->part.elts == NULL) {
        list->part = old;
        return NGX_ERROR;
    }

    list->part.nelts = 0;
    list->part.next = NULL;
    list->last = &list->part;
    list->nalloc = total;

    for (part = &old; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (ngx_http_tenant_header_matches(&header[i], &pattern)) {
                if (r->headers_in.authorization == &header[i]) {
                    r->headers_in.authorization = NULL;
                }

                continue;
            }

            copy = list->part.elts;
            copy[list->part.nelts++] = header[i];
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_add_header(ngx_http_request_t *r,
    const ngx_http_tenant_header_t *name, const ngx_str_t *value)
{
    ngx_table_elt_t  *header;

    header = ngx_list_push(&r->headers_in.headers);
    if (header == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(header, sizeof(ngx_table_elt_t));

    header->hash = name->hash;
    header->key = name->key;
    header->value = *value;
    header->lowcase_key = name->lowcase;

    return NGX_OK;
}
