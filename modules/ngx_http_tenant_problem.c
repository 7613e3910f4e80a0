/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Refusals as problem documents (RFC 9457).
 */

#include "ngx_http_tenant.h"


typedef struct {
    ngx_uint_t  status;
    ngx_str_t   slug;
    ngx_str_t   title;
    ngx_str_t   detail;
} ngx_http_tenant_problem_t;


/* draft-ietf-httpapi-ratelimit-headers-11 section 5.1 */
#define NGX_HTTP_TENANT_QUOTA_TYPE                                            \
    "https://iana.org/assignments/http-problem-types#quota-exceeded"
#define NGX_HTTP_TENANT_QUOTA_TITLE                                           \
    "Request cannot be satisfied as assigned quota has been exceeded"


static ngx_uint_t ngx_http_tenant_operator_answers(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_int_t ngx_http_tenant_refusal_headers(ngx_http_request_t *r,
    const ngx_http_tenant_refuse_t *more);
static ngx_int_t ngx_http_tenant_push_header(ngx_http_request_t *r,
    const char *name, const ngx_str_t *value);
static ngx_buf_t *ngx_http_tenant_problem_body(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const ngx_http_tenant_problem_t *problem,
    const ngx_http_tenant_refuse_t *more);
static ngx_int_t ngx_http_tenant_send_problem(ngx_http_request_t *r,
    ngx_buf_t *body);


/* In the order of ngx_http_tenant_refusal_e; docs/reference/problems.md. */
static const ngx_http_tenant_problem_t  ngx_http_tenant_problems[] = {

    { 200, ngx_string("-"), ngx_string(""), ngx_string("") },

    { 404, ngx_string("unknown-host"), ngx_string("Unknown host"),
      ngx_string("No tenant is served under this name.") },

    { 403, ngx_string("tenant-suspended"), ngx_string("Tenant suspended"),
      ngx_string("This tenant is suspended.") },

    { 404, ngx_string("no-route"), ngx_string("No such route"),
      ngx_string("No route of this tenant matches the request.") },

    { 405, ngx_string("bad-method"), ngx_string("Method not allowed"),
      ngx_string("A route matches the path, but not with this method.") },

    { 400, ngx_string("bad-request"), ngx_string("Bad request"),
      ngx_string("The request is not well-formed.") },

    { 503, ngx_string("not-ready"), ngx_string("Gateway not ready"),
      ngx_string("The gateway has not loaded its tenants yet; try again.") },

    { 503, ngx_string("overloaded"), ngx_string("Gateway overloaded"),
      ngx_string("The gateway has too many requests in flight; try again.") },

    { 401, ngx_string("no-credential"), ngx_string("Credential needed"),
      ngx_string("Send a bearer token or an API key.") },

    { 401, ngx_string("invalid-credential"), ngx_string("Credential refused"),
      ngx_string("The credential is not valid for this tenant.") },

    { 400, ngx_string("two-credentials"), ngx_string("Two credentials"),
      ngx_string("Send one credential, not several.") },

    { 403, ngx_string("forbidden"), ngx_string("Not allowed"),
      ngx_string("The credential does not allow this request.") },

    { 429, ngx_string("too-many-failures"),
      ngx_string("Too many failed attempts"),
      ngx_string("Too many refused credentials came from this address.") },

    { 429, ngx_string("over-quota"), ngx_string(NGX_HTTP_TENANT_QUOTA_TITLE),
      ngx_string("A quota of this tenant is used up for now.") },

    { 429, ngx_string("over-concurrency"),
      ngx_string(NGX_HTTP_TENANT_QUOTA_TITLE),
      ngx_string("Wait for requests in flight to end before sending more.") },

    { 413, ngx_string("body-too-large"), ngx_string("Body too large"),
      ngx_string("The request body is larger than the quota allows.") },

    { 503, ngx_string("no-endpoint"), ngx_string("No endpoint"),
      ngx_string("The service behind this route has no endpoint.") },

    { 503, ngx_string("circuit-open"), ngx_string("Service overloaded"),
      ngx_string("The service has as many requests in flight as it may.") },

    { 421, ngx_string("misdirected-request"),
      ngx_string("Misdirected request"),
      ngx_string("This tenant is served by another gateway: look its name up "
                 "again.") },
};


const ngx_str_t *
ngx_http_tenant_refusal_slug(ngx_http_tenant_refusal_e refusal)
{
    return &ngx_http_tenant_problems[refusal].slug;
}


ngx_int_t
ngx_http_tenant_refuse(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_refusal_e refusal, const ngx_http_tenant_refuse_t *more)
{
    ngx_buf_t                         *body;
    ngx_http_tenant_loc_conf_t        *tlcf;
    const ngx_http_tenant_problem_t   *problem;

    static const ngx_http_tenant_refuse_t  none;

    problem = &ngx_http_tenant_problems[refusal];
    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_module);

    ctx->refusal = refusal;
    ctx->refusal_status = problem->status;

    if (ctx->pin) {
        tg_zone_settle(ctx->pin);
    }

    if (more == NULL) {
        more = &none;
    }

    if (ngx_http_tenant_refusal_headers(r, more) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!tlcf->problem || ngx_http_tenant_operator_answers(r, problem->status))
    {
        return problem->status;
    }

    if (ngx_http_discard_request_body(r) != NGX_OK) {
        r->keepalive = 0;
    }

    body = ngx_http_tenant_problem_body(r, ctx, problem, more);
    if (body == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = problem->status;

    ngx_http_finalize_request(r, ngx_http_tenant_send_problem(r, body));

    return NGX_DONE;
}


ngx_buf_t *
ngx_http_tenant_problem(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_refusal_e refusal, const ngx_http_tenant_refuse_t *more)
{
    const ngx_http_tenant_problem_t  *problem;

    static const ngx_http_tenant_refuse_t  none;

    problem = &ngx_http_tenant_problems[refusal];

    ctx->refusal = refusal;
    ctx->refusal_status = problem->status;

    return ngx_http_tenant_problem_body(r, ctx, problem, more ? more : &none);
}


/* An error_page for this status is the operator's wish to answer himself. */
static ngx_uint_t
ngx_http_tenant_operator_answers(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *page;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->error_pages == NULL || r->error_page) {
        return 0;
    }

    page = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if (page[i].status == (ngx_int_t) status) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_tenant_refusal_headers(ngx_http_request_t *r,
    const ngx_http_tenant_refuse_t *more)
{
    ngx_str_t  value;

    static const ngx_str_t  no_store = ngx_string("no-store");

    if (ngx_http_tenant_push_header(r, "Cache-Control", &no_store) != NGX_OK
        || ngx_http_tenant_push_header(r, "WWW-Authenticate",
                                       &more->www_authenticate) != NGX_OK
        || ngx_http_tenant_push_header(r, "RateLimit-Policy",
                                       &more->ratelimit_policy) != NGX_OK
        || ngx_http_tenant_push_header(r, "RateLimit",
                                       &more->ratelimit) != NGX_OK
        || ngx_http_tenant_push_header(r, "Allow", &more->allow) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (more->retry_after <= 0) {
        return NGX_OK;
    }

    value.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%i", more->retry_after) - value.data;

    return ngx_http_tenant_push_header(r, "Retry-After", &value);
}


/* An empty value pushes nothing. */
static ngx_int_t
ngx_http_tenant_push_header(ngx_http_request_t *r, const char *name,
    const ngx_str_t *value)
{
    ngx_table_elt_t  *header;

    if (value->len == 0) {
        return NGX_OK;
    }

    header = ngx_list_push(&r->headers_out.headers);
    if (header == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(header, sizeof(ngx_table_elt_t));

    header->hash = 1;
    header->key.len = ngx_strlen(name);
    header->key.data = (u_char *) name;
    header->value = *value;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_tenant_json_plain(const ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < 0x20 || value->data[i] == '"'
            || value->data[i] == '\\')
        {
            return 0;
        }
    }

    return 1;
}


/* head: what comes before the value, its first quote included. */
static u_char *
ngx_http_tenant_json_str(u_char *p, const char *head, const ngx_str_t *value)
{
    p = ngx_cpymem(p, head, ngx_strlen(head));

    if (ngx_http_tenant_json_plain(value)) {
        p = ngx_cpymem(p, value->data, value->len);

    } else {
        p = (u_char *) ngx_escape_json(p, value->data, value->len);
    }

    *p++ = '"';

    return p;
}


/* Whether the type is the draft's; all others are ours, and named by the slug. */
static ngx_uint_t
ngx_http_tenant_problem_of_quota(const ngx_http_tenant_problem_t *problem)
{
    return problem == &ngx_http_tenant_problems[NGX_HTTP_TENANT_OVER_QUOTA]
           || problem
              == &ngx_http_tenant_problems[NGX_HTTP_TENANT_OVER_CONCURRENCY];
}


/* Not by ngx_sprintf(): a refusal has to be cheap. */
static u_char *
ngx_http_tenant_json_problem(u_char *p,
    const ngx_http_tenant_problem_t *problem)
{
    static const char  urn[] = "{\"type\":\"urn:tiergate:problem:";
    static const char  quota[] = "{\"type\":\"" NGX_HTTP_TENANT_QUOTA_TYPE
                                 "\",\"kind\":\"";
    static const char  title[] = "\",\"title\":\"";
    static const char  status[] = "\",\"status\":";

    if (ngx_http_tenant_problem_of_quota(problem)) {
        p = ngx_cpymem(p, quota, sizeof(quota) - 1);

    } else {
        p = ngx_cpymem(p, urn, sizeof(urn) - 1);
    }

    p = ngx_cpymem(p, problem->slug.data, problem->slug.len);
    p = ngx_cpymem(p, title, sizeof(title) - 1);
    p = ngx_cpymem(p, problem->title.data, problem->title.len);
    p = ngx_cpymem(p, status, sizeof(status) - 1);

    *p++ = (u_char) ('0' + problem->status / 100);
    *p++ = (u_char) ('0' + problem->status / 10 % 10);
    *p++ = (u_char) ('0' + problem->status % 10);

    return p;
}


static ngx_buf_t *
ngx_http_tenant_problem_body(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const ngx_http_tenant_problem_t *problem,
    const ngx_http_tenant_refuse_t *more)
{
    size_t            size;
    ngx_buf_t        *b;
    const ngx_str_t  *detail;
    ngx_str_t         tenant, route;

    ngx_str_null(&tenant);
    ngx_str_null(&route);

    if (ctx->block) {
        tenant = ngx_http_tenant_str(ctx->block, ctx->block->name);
    }

    if (ctx->route) {
        route = ngx_http_tenant_str(ctx->block, ctx->route->name);
    }

    detail = more->detail.len ? &more->detail : &problem->detail;

    /* 6: the longest escape of one byte */
    size = 160 + sizeof(NGX_HTTP_TENANT_QUOTA_TYPE) + problem->slug.len
           + problem->title.len + more->members.len
           + 6 * (detail->len + tenant.len + route.len);

    b = ngx_create_temp_buf(r->pool, size);
    if (b == NULL) {
        return NULL;
    }

    b->last = ngx_http_tenant_json_problem(b->last, problem);
    b->last = ngx_http_tenant_json_str(b->last, ",\"detail\":\"", detail);

    if (tenant.len) {
        b->last = ngx_http_tenant_json_str(b->last, ",\"tenant\":\"", &tenant);
    }

    if (route.len) {
        b->last = ngx_http_tenant_json_str(b->last, ",\"route\":\"", &route);
    }

    if (more->members.len) {
        b->last = ngx_cpymem(b->last, more->members.data, more->members.len);
    }

    *b->last++ = '}';
    *b->last++ = LF;

    b->last_buf = 1;
    b->last_in_chain = 1;

    return b;
}


static ngx_int_t
ngx_http_tenant_send_problem(ngx_http_request_t *r, ngx_buf_t *body)
{
    ngx_int_t    rc;
    ngx_chain_t  out;

    ngx_str_set(&r->headers_out.content_type, "application/problem+json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.content_length_n = body->last - body->pos;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = body;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}
