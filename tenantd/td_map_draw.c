/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <string.h>

#include "td_map_draw.h"


#define TD_MAP_WIDTH    190     /* of a node, as all in pixels */
#define TD_MAP_HEIGHT   40
#define TD_MAP_ACROSS   330     /* from layer to layer */
#define TD_MAP_DOWN     74
#define TD_MAP_MARGIN   30
#define TD_MAP_TITLE    24      /* characters that fit */


void
td_map_xml(tg_text_t *text, const char *s)
{
    size_t               n;
    const char          *escaped;
    const unsigned char *u;

    while (*s != '\0') {
        n = tg_utf8_len(s, strlen(s));
        u = (const unsigned char *) s;

        /* XML 1.0 section 2.2 */
        if (n == 0 || (n == 1 && u[0] < ' ') || u[0] == 0x7f
            || (n == 3 && u[0] == 0xef && u[1] == 0xbf && u[2] >= 0xbe))
        {
            tg_text_str(text, "\xef\xbf\xbd");
            s += n == 0 ? 1 : n;
            continue;
        }

        escaped = *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;"
                  : *s == '"' ? "&quot;" : *s == '\'' ? "&#39;" : NULL;

        if (escaped != NULL) {
            tg_text_str(text, escaped);
        } else {
            tg_text_add(text, s, n);
        }

        s += n;
    }
}


/* A backslash begins an escape in labels: it is doubled. */
void
td_map_quote(tg_text_t *text, const char *s)
{
    size_t  n;

    tg_text_str(text, "\"");

    while (*s != '\0') {
        n = tg_utf8_len(s, strlen(s));

        if (n == 0 || (unsigned char) *s < ' ' || *s == 0x7f) {
            tg_text_str(text, "\xef\xbf\xbd");
            s += n == 0 ? 1 : n;
            continue;
        }

        if (*s == '"' || *s == '\\') {
            tg_text_str(text, "\\");
        }

        tg_text_add(text, s, n);
        s += n;
    }

    tg_text_str(text, "\"");
}


/* "web" of the map's own tenant, "globex/api" of another. */
static void
td_map_name(char *name, size_t size, const td_map_t *map,
    const td_map_node_t *node)
{
    if (node->tenant[0] == '\0') {
        snprintf(name, size, "outside");

    } else if (strcmp(node->tenant, map->tenant) == 0) {
        snprintf(name, size, "%s",
                 node->service[0] != '\0' ? node->service : node->tenant);

    } else {
        snprintf(name, size, "%s/%s", node->tenant, node->service);
    }
}


static void
td_map_label(char *label, size_t size, const td_map_edge_t *edge)
{
    int  n;

    n = snprintf(label, size, "%lld", edge->connections);

    if (edge->denied > 0 && n < (int) size) {
        n += snprintf(label + n, size - (size_t) n, ", %lld denied",
                      edge->denied);
    }

    if (edge->failed > 0 && n < (int) size) {
        n += snprintf(label + n, size - (size_t) n, ", %lld failed",
                      edge->failed);
    }

    if (edge->rtt_us > 0 && n < (int) size) {
        snprintf(label + n, size - (size_t) n, ", %.1f ms",
                 (double) edge->rtt_us / 1000);
    }
}


static const char *
td_map_colour(const td_map_edge_t *edge)
{
    if (edge->connections == 0 && edge->denied > 0) {
        return "#b3261e";
    }

    return edge->denied + edge->failed > 0 ? "#a15c00" : "#4a6572";
}


int
td_map_dot(tg_text_t *text, const td_map_t *map)
{
    size_t                i;
    char                  name[160], label[128];
    const td_map_node_t  *node;
    const td_map_edge_t  *edge;

    tg_text_str(text, "digraph ");
    td_map_quote(text, map->tenant);
    tg_text_str(text, " {\n    rankdir=LR;\n    node [shape=box];\n");

    for (i = 0; i < map->nodes; i++) {
        node = &map->node[i];
        td_map_name(name, sizeof(name), map, node);
        tg_text_printf(text, "    n%zu [label=", i);
        td_map_quote(text, name);
        tg_text_printf(text, "%s];\n",
                       strcmp(node->tenant, map->tenant) == 0 ? ""
                       : ", style=dashed");
    }

    for (i = 0; i < map->edges; i++) {
        edge = &map->edge[i];
        td_map_label(label, sizeof(label), edge);
        tg_text_printf(text, "    n%zu -> n%zu [label=", edge->from, edge->to);
        td_map_quote(text, label);
        tg_text_printf(text, ", color=\"%s\"];\n", td_map_colour(edge));
    }

    tg_text_str(text, "}\n");

    return 0;
}


static int
td_map_x(const td_map_node_t *node)
{
    return TD_MAP_MARGIN + node->layer * TD_MAP_ACROSS;
}


/* Layers with few rows stand in the middle. */
static int
td_map_y(const td_map_t *map, const td_map_node_t *node)
{
    int     n;
    size_t  i;

    for (n = 0, i = 0; i < map->nodes; i++) {
        n += map->node[i].layer == node->layer;
    }

    return TD_MAP_MARGIN + (map->rows - n) * TD_MAP_DOWN / 2
           + node->row * TD_MAP_DOWN;
}


static void
td_map_svg_node(tg_text_t *text, const td_map_t *map, const td_map_node_t *node)
{
    int     x, y;
    char    name[160];
    size_t  len;

    x = td_map_x(node);
    y = td_map_y(map, node);
    td_map_name(name, sizeof(name), map, node);

    tg_text_printf(text, "<g><title>");
    td_map_xml(text, name);
    tg_text_printf(text, "</title><rect x=\"%d\" y=\"%d\" width=\"%d\" "
                   "height=\"%d\" rx=\"6\"%s/><text x=\"%d\" y=\"%d\">", x, y,
                   TD_MAP_WIDTH, TD_MAP_HEIGHT,
                   strcmp(node->tenant, map->tenant) == 0 ? ""
                   : " stroke-dasharray=\"5 3\"",
                   x + TD_MAP_WIDTH / 2, y + TD_MAP_HEIGHT / 2 + 5);

    len = strlen(name);
    if (len > TD_MAP_TITLE) {
        memcpy(name + TD_MAP_TITLE - 2, "..", 3);
    }

    td_map_xml(text, name);
    tg_text_str(text, "</text></g>\n");
}


static void
td_map_svg_edge(tg_text_t *text, const td_map_t *map, const td_map_edge_t *edge)
{
    int                   x1, y1, x2, y2, bend;
    char                  label[128];
    const td_map_node_t  *from, *to;

    from = &map->node[edge->from];
    to = &map->node[edge->to];
    x1 = td_map_x(from) + TD_MAP_WIDTH;
    y1 = td_map_y(map, from) + TD_MAP_HEIGHT / 2;
    x2 = td_map_x(to);
    y2 = td_map_y(map, to) + TD_MAP_HEIGHT / 2;
    bend = edge->back ? TD_MAP_ACROSS / 2 : (x2 - x1) / 2;

    td_map_label(label, sizeof(label), edge);
    tg_text_printf(text, "<path d=\"M%d %d C%d %d %d %d %d %d\" stroke=\"%s\" "
                   "marker-end=\"url(#a)\"/><text x=\"%d\" y=\"%d\" "
                   "class=\"e\">", x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2,
                   td_map_colour(edge), (x1 + x2) / 2, (y1 + y2) / 2 - 6);
    td_map_xml(text, label);
    tg_text_str(text, "</text>\n");
}


int
td_map_svg(tg_text_t *text, const td_map_t *map)
{
    int     width, height;
    size_t  i;

    width = 2 * TD_MAP_MARGIN + TD_MAP_WIDTH
            + (map->layers > 1 ? map->layers - 1 : 0) * TD_MAP_ACROSS;
    height = 2 * TD_MAP_MARGIN + (map->rows > 1 ? map->rows : 1) * TD_MAP_DOWN;

    tg_text_printf(text, "<svg xmlns=\"http://www.w3.org/2000/svg\" "
                   "viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n",
                   width, height, width, height);
    tg_text_str(text, "<style>rect{fill:#fff;stroke:#263238}path{fill:none}"
                "text{font:14px sans-serif;text-anchor:middle;fill:#263238}"
                ".e{font-size:11px;stroke:#fff;stroke-width:3px;"
                "paint-order:stroke}</style>\n<defs><marker id=\"a\" "
                "markerWidth=\"9\" markerHeight=\"8\" refX=\"8\" refY=\"4\" "
                "orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" "
                "style=\"fill:#4a6572\"/></marker></defs>\n<title>");
    td_map_xml(text, map->tenant);
    tg_text_str(text, "</title>\n");

    for (i = 0; i < map->edges; i++) {
        td_map_svg_edge(text, map, &map->edge[i]);
    }

    for (i = 0; i < map->nodes; i++) {
        td_map_svg_node(text, map, &map->node[i]);
    }

    tg_text_str(text, "</svg>\n");

    return 0;
}
