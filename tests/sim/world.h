/*
 * The world: a client, two guests, the core between them, and time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <setjmp.h>
#include <stdio.h>

#include "checker.h"
#include "host.h"
#include "net/colo/comparator.h"
#include "net/colo/rewriter.h"
#include "scenario.h"

/* Who draws from a source of luck of its own. */
enum {
    PURPOSE_WORLD = 2,
    PURPOSE_CLIENT,
    PURPOSE_PRIMARY,
    PURPOSE_SECONDARY,
};

/* The steps of a checkpoint, in their order. */
typedef enum {
    CHECKPOINT_NONE,
    CHECKPOINT_PRIMARY_PAUSES,
    CHECKPOINT_SECONDARY_PAUSES,
    CHECKPOINT_LOADED,
    CHECKPOINT_SECONDARY_RESUMES,
    CHECKPOINT_COMPARATOR_TOLD,
    CHECKPOINT_PRIMARY_RESUMES,
} CheckpointStep;

/* What a run came to. */
typedef struct {
    bool failed;
    char failure[400];
    uint64_t asked[COLO_REASONS];
    uint32_t checkpoints;
    bool failed_over;
    uint64_t frames_in;         /* of the primary's, into the comparator */
    uint64_t frames_released;
    uint64_t frames_narrowed;   /* of these, with another window */
    uint64_t frames_waited;     /* in the rewriter */
    uint64_t frames_ready;      /* that had waited there */
    uint64_t bytes_received;    /* by the client */
    int64_t simulated;
} Outcome;

struct World {
    Scenario scenario;
    Draw draw;
    int64_t now;
    Outcome outcome;
    FILE *trace;
    jmp_buf over;               /* where world_fail() ends */

    Host client;
    Host guest[COLO_SIDES];
    bool begun;                 /* COLO has */
    bool running[COLO_SIDES];
    bool primary_is_dead;
    bool failed_over;
    bool loaded_anew;           /* the secondary, and it has not resumed yet */
    uint32_t epoch[COLO_SIDES]; /* of the guests */
    bool lied[CONNECTIONS_MAX];
    int64_t closed_at[CONNECTIONS_MAX];

    ColoComparator *comparator;
    ColoRewriter *rewriter;
    Checker *checker;

    GQueue to_client;           /* Parcels, by arrival */
    GQueue to_guest;
    int64_t link_last[2];
    GQueue tap;                /* what waits for the primary's network card while it stands still */
    GQueue mirror;             /* to the secondary */
    GQueue ready;              /* what the rewriter has let go */
    GQueue ring[COLO_SIDES];   /* what a guest's network card has taken and the guest has not; a checkpoint copies it */
    GQueue output[COLO_SIDES]; /* to the comparator; the secondary's waits here when the primary is dead */
    int64_t tick_late;

    CheckpointStep step;        /* the next one */
    int64_t step_at;
    bool wanted;                /* a checkpoint */
    int64_t periodic_at;
    int64_t failover_at;
    int64_t takeover_at;
    int64_t divergence_at;
    int64_t reconnect_at;       /* the secondary's output breaks off; or, while it is: it is connected again */
    bool cut_off;               /* it is */
    uint32_t marked;            /* the epoch of the secondary's last mark */
    uint32_t told;              /* that of the last checkpoint that the comparator was told of */
};

/* Runs the world that @seed makes. */
Outcome world_run(uint64_t seed, uint32_t classes, FILE *trace);

/* Something is wrong: ends the run. */
void world_fail(World *w, const char *format, ...) G_GNUC_PRINTF(2, 3);
void world_trace(World *w, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* A host sends @p, which is the world's from here on. */
void world_output(World *w, Host *h, Parcel *p);

/* The connection whose ports @number takes over is over for everybody. */
bool world_may_open(const World *w, int number);

/* Whether a repetition by this host is to have a wrong byte. */
bool world_lies(World *w, const Host *h, int number);

#endif /* TESTS_SIM_WORLD_H */
