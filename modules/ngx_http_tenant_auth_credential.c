/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The credentials of a request: where they are, and how they are kept from the
 * upstream.  A credential of a method that the route does not accept is not
 * looked at: an Authorization header may be the upstream's business.
 */

#include "ngx_http_tenant_auth.h"


static void ngx_http_tenant_auth_headers(ngx_http_request_t *r,
    const tg_route_t *route, ngx_http_tenant_credential_t *credential);
static ngx_uint_t ngx_http_tenant_auth_header_is(const ngx_table_elt_t *header,
    const ngx_str_t *name);
static ngx_str_t ngx_http_tenant_auth_trim(ngx_str_t value);
static ngx_uint_t ngx_http_tenant_auth_bearer(ngx_str_t value,
    ngx_str_t *token);
static ngx_int_t ngx_http_tenant_auth_query(ngx_http_request_t *r,
    ngx_http_tenant_credential_t *credential);
static ngx_uint_t ngx_http_tenant_auth_next_arg(ngx_str_t *args,
    ngx_str_t *arg, ngx_str_t *value);
static ngx_uint_t ngx_http_tenant_auth_is_key(const ngx_str_t *arg,
    const ngx_str_t *name);
static ngx_int_t ngx_http_tenant_auth_hide_query(ngx_http_request_t *r,
    const ngx_str_t *name);


static const ngx_str_t  ngx_http_tenant_authorization =
    ngx_string("authorization");


ngx_int_t
ngx_http_tenant_auth_credential(ngx_http_request_t *r, const tg_route_t *route,
    ngx_http_tenant_credential_t *credential)
{
    ngx_http_tenant_auth_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_auth_module);

    ngx_memzero(credential, sizeof(ngx_http_tenant_credential_t));

    ngx_http_tenant_auth_headers(r, route, credential);

    if (alcf->key_query.len && r->args.len
        && (route->auth_methods & TG_AUTH_API_KEY))
    {
        return ngx_http_tenant_auth_query(r, credential);
    }

    return NGX_OK;
}


static void
ngx_http_tenant_auth_headers(ngx_http_request_t *r, const tg_route_t *route,
    ngx_http_tenant_credential_t *credential)
{
    ngx_str_t                         token;
    ngx_uint_t                        i, authorizations;
    ngx_list_part_t                  *part;
    ngx_table_elt_t                  *header;
    ngx_http_tenant_auth_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_auth_module);
    authorizations = 0;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if ((route->auth_methods & TG_AUTH_API_KEY)
                && ngx_http_tenant_auth_header_is(&header[i],
                                                  &alcf->key_header))
            {
                credential->key = ngx_http_tenant_auth_trim(header[i].value);
                credential->keys++;
            }

            if ((route->auth_methods & TG_AUTH_JWT)
                && ngx_http_tenant_auth_header_is(&header[i],
                                              &ngx_http_tenant_authorization))
            {
                authorizations++;

                if (ngx_http_tenant_auth_bearer(header[i].value, &token)) {
                    credential->token = token;
                    credential->tokens++;
                }
            }
        }
    }

    /* a token beside another scheme: which one would the upstream look at? */
    if (credential->tokens && authorizations > 1) {
        credential->tokens = authorizations;
    }
}


static ngx_uint_t
ngx_http_tenant_auth_header_is(const ngx_table_elt_t *header,
    const ngx_str_t *name)
{
    return header->key.len == name->len
           && ngx_memcmp(header->lowcase_key, name->data, name->len) == 0;
}


/* RFC 9110 section 5.5: blanks around a value are no part of it. */
static ngx_str_t
ngx_http_tenant_auth_trim(ngx_str_t value)
{
    while (value.len && (value.data[0] == ' ' || value.data[0] == '\t')) {
        value.data++;
        value.len--;
    }

    while (value.len && (value.data[value.len - 1] == ' '
                         || value.data[value.len - 1] == '\t'))
    {
        value.len--;
    }

    return value;
}


/* RFC 6750 section 2.1; what follows the scheme is the token, whatever it is. */
static ngx_uint_t
ngx_http_tenant_auth_bearer(ngx_str_t value, ngx_str_t *token)
{
    static const size_t  scheme = sizeof("Bearer") - 1;

    value = ngx_http_tenant_auth_trim(value);

    if (value.len < scheme
        || ngx_strncasecmp(value.data, (u_char *) "Bearer", scheme) != 0
        || (value.len > scheme && value.data[scheme] != ' '))
    {
        return 0;
    }

    token->data = value.data + scheme;
    token->len = value.len - scheme;

    *token = ngx_http_tenant_auth_trim(*token);

    return 1;
}


static ngx_int_t
ngx_http_tenant_auth_query(ngx_http_request_t *r,
    ngx_http_tenant_credential_t *credential)
{
    u_char                           *dst, *src;
    ngx_str_t                         args, arg, value;
    ngx_http_tenant_auth_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_auth_module);

    args = r->args;

    while (ngx_http_tenant_auth_next_arg(&args, &arg, &value)) {

        if (!ngx_http_tenant_auth_is_key(&arg, &alcf->key_query)) {
            continue;
        }

        dst = ngx_pnalloc(r->pool, value.len + 1);
        if (dst == NULL) {
            return NGX_ERROR;
        }

        credential->key.data = dst;
        src = value.data;
        ngx_unescape_uri(&dst, &src, value.len, 0);
        credential->key.len = dst - credential->key.data;
        credential->keys++;
    }

    return NGX_OK;
}


/* Cuts the next argument off; arg is its whole text, value what follows "=". */
static ngx_uint_t
ngx_http_tenant_auth_next_arg(ngx_str_t *args, ngx_str_t *arg,
    ngx_str_t *value)
{
    u_char  *p, *last;

    if (args->len == 0) {
        return 0;
    }

    last = args->data + args->len;

    arg->data = args->data;
    p = ngx_strlchr(args->data, last, '&');
    arg->len = (p ? p : last) - arg->data;

    args->data = p ? p + 1 : last;
    args->len = last - args->data;

    last = arg->data + arg->len;
    p = ngx_strlchr(arg->data, last, '=');
    value->data = p ? p + 1 : last;
    value->len = last - value->data;

    return 1;
}


/* Whether an argument's name, percent-decoded, is the API key's. */
static ngx_uint_t
ngx_http_tenant_auth_is_key(const ngx_str_t *arg, const ngx_str_t *name)
{
    u_char  *p, *last, ch;
    size_t   i;

    p = arg->data;
    last = p + arg->len;

    for (i = 0; i < name->len; i++) {

        if (p == last) {
            return 0;
        }

        ch = *p++;

        if (ch == '%' && last - p >= 2 && ngx_hextoi(p, 2) != NGX_ERROR) {
            ch = (u_char) ngx_hextoi(p, 2);
            p += 2;
        }

        if (ch != name->data[i]) {
            return 0;
        }
    }

    return p == last || *p == '=';
}


ngx_int_t
ngx_http_tenant_auth_hide(ngx_http_request_t *r, const tg_route_t *route)
{
    ngx_str_t                         token;
    ngx_http_tenant_auth_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_auth_module);

    if (r->headers_in.authorization
        && (route->auth_methods & TG_AUTH_JWT)
        && ngx_http_tenant_auth_bearer(r->headers_in.authorization->value,
                                       &token)
        && ngx_http_tenant_remove_header(r, &ngx_http_tenant_authorization)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_tenant_remove_header(r, &alcf->key_header) != NGX_OK) {
        return NGX_ERROR;
    }

    if (alcf->key_query.len && r->args.len) {
        return ngx_http_tenant_auth_hide_query(r, &alcf->key_query);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_auth_hide_query(ngx_http_request_t *r, const ngx_str_t *name)
{
    u_char     *p;
    ngx_str_t   args, arg, value, rest;

    args = r->args;
    rest.len = 0;

    rest.data = ngx_pnalloc(r->pool, args.len);
    if (rest.data == NULL) {
        return NGX_ERROR;
    }

    p = rest.data;

    while (ngx_http_tenant_auth_next_arg(&args, &arg, &value)) {

        if (ngx_http_tenant_auth_is_key(&arg, name)) {
            continue;
        }

        if (p != rest.data) {
            *p++ = '&';
        }

        p = ngx_cpymem(p, arg.data, arg.len);
    }

    rest.len = p - rest.data;

    r->args = rest;

    /* the request line as it came must not be sent on */
    r->valid_unparsed_uri = 0;

    return NGX_OK;
}
