/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "td_map_draw.h"
#include "td_page.h"
#include "td_rest.h"
#include "td_servicemap.h"


#define TD_SERVICEMAP_DOT  "text/vnd.graphviz"
#define TD_SERVICEMAP_SVG  "image/svg+xml"


static void
td_servicemap_show(td_request_t *request, const json_t *body, const char *type,
    int (*draw)(tg_text_t *text, const td_map_t *map))
{
    int        rc;
    td_map_t   map;
    tg_text_t  text;

    tg_text_init(&text);
    rc = td_map_read(&map, body);

    if (rc == 0) {
        td_map_layout(&map);
        rc = draw(&text, &map);
        td_map_free(&map);
    }

    if (rc != 0 || text.failed) {
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");

    } else {
        /* what a browser shows must not be able to do anything */
        td_reply_header(request, "Content-Security-Policy",
                        "default-src 'none'; style-src 'unsafe-inline'; "
                        "sandbox");
        td_reply_header(request, "X-Content-Type-Options", "nosniff");
        td_reply(request, 200, type, text.data, text.len);
    }

    tg_text_free(&text);
}


static void
td_servicemap_dot(td_request_t *request, const json_t *body)
{
    td_servicemap_show(request, body, TD_SERVICEMAP_DOT, td_map_dot);
}


static void
td_servicemap_svg(td_request_t *request, const json_t *body)
{
    td_servicemap_show(request, body, TD_SERVICEMAP_SVG, td_map_svg);
}


void
td_servicemap_handle(td_request_t *request)
{
    const char  *format;

    format = tg_uri_query(&request->uri, "format");

    if (format != NULL ? strcmp(format, "dot") == 0
                       : td_page_accepts(request, TD_SERVICEMAP_DOT))
    {
        td_page_call(request, td_servicemap_dot);

    } else if (format != NULL ? strcmp(format, "svg") == 0
                              : td_page_accepts(request, TD_SERVICEMAP_SVG))
    {
        td_page_call(request, td_servicemap_svg);

    } else {
        td_rest_handle(request);
    }
}
