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
#define NGX_HTTP_TENANT_SPARE_HEADERS  8


static ngx_uint_t
ngx_http_tenant_folded_equal(const u_char *a, const u_char *b, size_t n)
{
    u_char  c, d;
    size_t  i;

    for (i = 0; i < n; i++) {
        c = ngx_tolower(a[i]);
        d = ngx_tolower(b[i]);

        if ((c == '_' ? '-' : c) != (d == '_' ? '-' : d)) {
            return 0;
        }
    }

    return 1;
}


/* A name that ends in "*" matches every header that starts so. */
static ngx_uint_t
ngx_http_tenant_header_matches(const ngx_table_elt_t *header,
    const ngx_str_t *name)
{
    if (name->len && name->data[name->len - 1] == '*') {
        return header->key.len >= name->len - 1
               && ngx_http_tenant_folded_equal(header->key.data, name->data,
                                               name->len - 1);
    }

    return header->key.len == name->len
           && ngx_http_tenant_folded_equal(header->key.data, name->data,
                                           name->len);
}


static ngx_uint_t
ngx_http_tenant_count_headers(const ngx_list_t *list, const ngx_str_t *name,
    ngx_uint_t *total)
{
    ngx_uint_t              i, matching;
    const ngx_list_part_t  *part;
    const ngx_table_elt_t  *header;

    matching = 0;
    *total = 0;

    for (part = &list->part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            matching += ngx_http_tenant_header_matches(&header[i], name);
        }

        *total += part->nelts;
    }

    return matching;
}


ngx_int_t
ngx_http_tenant_remove_header(ngx_http_request_t *r, const ngx_str_t *name)
{
    ngx_uint_t        i, total, matching;
    ngx_list_part_t   old, *part;
    ngx_table_elt_t  *header, *copy;

    matching = ngx_http_tenant_count_headers(&r->headers_in.headers, name,
                                             &total);
    if (matching == 0) {
        return NGX_OK;
    }

    old = r->headers_in.headers.part;

    if (ngx_list_init(&r->headers_in.headers, r->pool,
                      total - matching + NGX_HTTP_TENANT_SPARE_HEADERS,
                      sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (part = &old; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (ngx_http_tenant_header_matches(&header[i], name)) {
                if (r->headers_in.authorization == &header[i]) {
                    r->headers_in.authorization = NULL;
                }

                continue;
            }

            copy = ngx_list_push(&r->headers_in.headers);
            if (copy == NULL) {
                return NGX_ERROR;
            }

            *copy = header[i];
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_add_header(ngx_http_request_t *r, const char *name,
    const ngx_str_t *value)
{
    ngx_table_elt_t  *header;

    header = ngx_list_push(&r->headers_in.headers);
    if (header == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(header, sizeof(ngx_table_elt_t));

    header->key.len = ngx_strlen(name);
    header->key.data = (u_char *) name;
    header->value = *value;

    header->lowcase_key = ngx_pnalloc(r->pool, header->key.len);
    if (header->lowcase_key == NULL) {
        return NGX_ERROR;
    }

    header->hash = ngx_hash_strlow(header->lowcase_key, header->key.data,
                                   header->key.len);

    return NGX_OK;
}
