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


/* Of names in lower case; "_" and "-" are the same. */
static ngx_uint_t
ngx_http_tenant_folded_equal(const u_char *a, const u_char *b, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (a[i] != b[i] && !((a[i] == '_' && b[i] == '-')
                              || (a[i] == '-' && b[i] == '_')))
        {
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
               && ngx_http_tenant_folded_equal(header->lowcase_key,
                                               name->data, name->len - 1);
    }

    return header->key.len == name->len
           && ngx_http_tenant_folded_equal(header->lowcase_key, name->data,
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
    ngx_list_t       *list;
    ngx_uint_t        i, total, matching;
    ngx_list_part_t   old, *part;
    ngx_table_elt_t  *header, *copy;

    matching = ngx_http_tenant_count_headers(&r->headers_in.headers, name,
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
            if (ngx_http_tenant_header_matches(&header[i], name)) {
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
