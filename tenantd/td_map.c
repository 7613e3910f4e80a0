/* SPDX-License-Identifier: BSD-2-Clause */

/* A service map read, and laid out. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_map_draw.h"


#define TD_MAP_SWEEPS  8

typedef enum {
    TD_MAP_NEW,
    TD_MAP_OPEN,        /* on the way that the search has come */
    TD_MAP_DONE
} td_map_mark_e;


static void
td_map_copy(char *to, size_t size, const json_t *object, const char *member)
{
    const char  *value;

    value = json_string_value(json_object_get(object, member));
    snprintf(to, size, "%s", value != NULL ? value : "");
}


/* The node's index; it is added if need be.  map->nodes at most TD_MAP_NODES. */
static size_t
td_map_find(td_map_t *map, const json_t *who)
{
    size_t         i;
    td_map_node_t  node;

    memset(&node, 0, sizeof(node));
    td_map_copy(node.tenant, sizeof(node.tenant), who, "tenant");
    td_map_copy(node.service, sizeof(node.service), who, "service");

    for (i = 0; i < map->nodes; i++) {
        if (strcmp(map->node[i].tenant, node.tenant) == 0
            && strcmp(map->node[i].service, node.service) == 0)
        {
            return i;
        }
    }

    if (i < TD_MAP_NODES) {
        map->node[i] = node;
        map->nodes++;
    }

    return i;
}


static long long
td_map_number(const json_t *edge, const char *member)
{
    return (long long) json_integer_value(json_object_get(edge, member));
}


int
td_map_read(td_map_t *map, const json_t *json)
{
    size_t          i;
    json_t         *given, *edges;
    td_map_edge_t  *edge;

    memset(map, 0, sizeof(td_map_t));
    td_map_copy(map->tenant, sizeof(map->tenant), json, "tenant");

    edges = json_object_get(json, "edges");
    map->node = calloc(TD_MAP_NODES, sizeof(td_map_node_t));
    map->edge = calloc(json_array_size(edges) + 1, sizeof(td_map_edge_t));

    if (map->node == NULL || map->edge == NULL) {
        td_map_free(map);
        return -1;
    }

    json_array_foreach(edges, i, given) {
        edge = &map->edge[map->edges];
        edge->from = td_map_find(map, json_object_get(given, "source"));
        edge->to = td_map_find(map, json_object_get(given, "destination"));
        edge->connections = td_map_number(given, "connections");
        edge->failed = td_map_number(given, "failed");
        edge->denied = td_map_number(given, "denied");
        edge->bytes = td_map_number(given, "bytes_sent")
                      + td_map_number(given, "bytes_received");
        edge->rtt_us = td_map_number(given, "rtt_us");

        if (edge->from < TD_MAP_NODES && edge->to < TD_MAP_NODES) {
            map->edges++;
        }
    }

    return 0;
}


void
td_map_free(td_map_t *map)
{
    free(map->node);
    free(map->edge);
    memset(map, 0, sizeof(td_map_t));
}


/* Depth at most TD_MAP_NODES, of frames that are small. */
static void
td_map_visit(td_map_t *map, size_t node)
{
    size_t          i;
    td_map_edge_t  *edge;

    map->node[node].mark = TD_MAP_OPEN;

    for (i = 0; i < map->edges; i++) {
        edge = &map->edge[i];

        if (edge->from != node) {
            continue;
        }

        if (map->node[edge->to].mark == TD_MAP_OPEN) {
            edge->back = 1;

        } else if (map->node[edge->to].mark == TD_MAP_NEW) {
            td_map_visit(map, edge->to);
        }
    }

    map->node[node].mark = TD_MAP_DONE;
}


/* Without the edges that go back there is no cycle: this ends. */
static void
td_map_layers(td_map_t *map)
{
    int             moved;
    size_t          i;
    td_map_node_t  *from, *to;

    do {
        moved = 0;

        for (i = 0; i < map->edges; i++) {
            from = &map->node[map->edge[i].from];
            to = &map->node[map->edge[i].to];

            if (!map->edge[i].back && to->layer <= from->layer) {
                to->layer = from->layer + 1;
                moved = 1;
            }
        }
    } while (moved);
}


/* Where a node wants to be: in the middle of those that it is connected to. */
static void
td_map_weigh(td_map_t *map, size_t node, int forth)
{
    int             n;
    size_t          i, other;
    double          sum;
    td_map_edge_t  *edge;

    n = 0;
    sum = 0;

    for (i = 0; i < map->edges; i++) {
        edge = &map->edge[i];

        if ((forth ? edge->to : edge->from) == node) {
            other = forth ? edge->from : edge->to;
            sum += map->node[other].row;
            n++;
        }
    }

    map->node[node].weight = n > 0 ? sum / n : map->node[node].row;
}


typedef struct {
    int     layer;
    double  weight;
    size_t  node;
} td_map_place_t;


static int
td_map_compare(const void *a, const void *b)
{
    const td_map_place_t  *x = a, *y = b;

    if (x->layer != y->layer) {
        return x->layer < y->layer ? -1 : 1;
    }

    if (x->weight < y->weight || x->weight > y->weight) {
        return x->weight < y->weight ? -1 : 1;
    }

    return x->node < y->node ? -1 : x->node > y->node;
}


static void
td_map_rows(td_map_t *map)
{
    int             row;
    size_t          i;
    td_map_place_t  place[TD_MAP_NODES];

    if (map->nodes == 0) {
        return;
    }

    for (i = 0; i < map->nodes; i++) {
        place[i].layer = map->node[i].layer;
        place[i].weight = map->node[i].weight;
        place[i].node = i;
    }

    qsort(place, map->nodes, sizeof(place[0]), td_map_compare);

    for (row = 0, i = 0; i < map->nodes; i++) {
        row = i > 0 && place[i].layer == place[i - 1].layer ? row + 1 : 0;
        map->node[place[i].node].row = row;

        if (row >= map->rows) {
            map->rows = row + 1;
        }

        if (place[i].layer >= map->layers) {
            map->layers = place[i].layer + 1;
        }
    }
}


void
td_map_layout(td_map_t *map)
{
    int     sweep;
    size_t  i;

    for (i = 0; i < map->nodes; i++) {
        if (map->node[i].mark == TD_MAP_NEW) {
            td_map_visit(map, i);
        }
    }

    td_map_layers(map);
    td_map_rows(map);

    for (sweep = 0; sweep < TD_MAP_SWEEPS; sweep++) {
        for (i = 0; i < map->nodes; i++) {
            td_map_weigh(map, i, sweep % 2 == 0);
        }
        td_map_rows(map);
    }
}
