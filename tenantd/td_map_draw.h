/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A service map as a drawing: graphviz' language, or SVG with a layout of our own.
 * Nothing in a name gets out of the text that it is.
 *
 * The layout is layered: who calls is left of whom it calls.  Calls that close a
 * cycle go back, nodes of a layer are put near those that they are connected to.
 */

#ifndef TD_MAP_DRAW_H
#define TD_MAP_DRAW_H

#include <jansson.h>

#include "tg_text.h"

#define TD_MAP_NODES  1024

typedef struct {
    char      tenant[64];       /* "": outside the mesh */
    char      service[64];
    int       layer;
    int       row;              /* within the layer */
    int       mark;             /* td_map_mark_e, of the search for cycles */
    double    weight;           /* where it wants to be */
} td_map_node_t;

typedef struct {
    size_t     from;
    size_t     to;
    int        back;            /* closes a cycle */
    long long  connections;
    long long  failed;
    long long  denied;
    long long  bytes;
    long long  rtt_us;
} td_map_edge_t;

typedef struct {
    char            tenant[64];     /* whose map it is */
    td_map_node_t  *node;
    size_t          nodes;
    td_map_edge_t  *edge;
    size_t          edges;
    int             layers;
    int             rows;           /* of the fullest layer */
} td_map_t;

/* Of the answer of get_servicemap(); what has another form is left out.  Returns
 * -1: no memory. */
int td_map_read(td_map_t *map, const json_t *json);
void td_map_free(td_map_t *map);

/* Sets layer and row of each node. */
void td_map_layout(td_map_t *map);

/* Both return 0; out of memory is in text. */
int td_map_dot(tg_text_t *text, const td_map_t *map);
int td_map_svg(tg_text_t *text, const td_map_t *map);

/* Text of an XML document: what XML 1.0 does not have becomes U+FFFD. */
void td_map_xml(tg_text_t *text, const char *s);

/* A quoted string of DOT. */
void td_map_quote(tg_text_t *text, const char *s);

#endif /* TD_MAP_DRAW_H */
