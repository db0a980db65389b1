/*
 * Hosts: the client and the two guests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_HOST_H
#define TESTS_SIM_HOST_H

#include "tcp.h"

enum {
    ANSWERS_MAX = 512,
};

/* A datagram that a guest will send. */
typedef struct {
    int flow;
    uint32_t request;
    uint32_t answer;
    int64_t at;
} Answer;

/* All that a checkpoint copies. */
typedef struct {
    Tcp tcp[CONNECTIONS_MAX];
    uint64_t datagram_salt;
    int answers;
    Answer answer[ANSWERS_MAX];
} Memory;

typedef struct World World;

struct Host {
    const char *name;
    World *world;
    const Scenario *scenario;
    int end;                    /* GUEST or CLIENT */
    Draw draw;                  /* what a copy does not share */
    Style style;
    Memory memory;
    /* The client only */
    GByteArray *got[CONNECTIONS_MAX];   /* the guest's stream */
    uint32_t requests[FLOWS_MAX];       /* sent */
    int64_t request_at[FLOWS_MAX];
};

void host_init(Host *h, World *w, const char *name, int end, uint64_t purpose);
void host_clear(Host *h);

/* A frame has come. */
void host_input(Host *h, const Reading *r, int64_t now);

int64_t host_deadline(const Host *h);
void host_wake(Host *h, int64_t now);

/* A guest's applications begin to write something else. */
void host_diverge(Host *h, int64_t now);

/* The end of connection @number has nothing left to do. */
bool host_is_done(Host *h, int number);

/* The connection or flow that a frame belongs to, in @meta; false if there is none. */
bool scenario_find(const Scenario *s, const Reading *r, bool to_guest, Meta *meta);

/* What a guest answers. */
uint32_t answer_size(const DatagramFlow *f, uint32_t request, uint32_t answer);

#endif /* TESTS_SIM_HOST_H */
