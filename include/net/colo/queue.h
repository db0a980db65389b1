/*
 * Queues of held packets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_QUEUE_H
#define NET_COLO_QUEUE_H

#include "net/colo/packet.h"

/* Linked through ColoPacket.next.  All zero is empty.  The packets belong to the caller. */
typedef struct ColoQueue {
    ColoPacket *head;
    ColoPacket *tail;
} ColoQueue;

static inline void colo_queue_push(ColoQueue *queue, ColoPacket *p)
{
    p->next = NULL;
    *(queue->tail ? &queue->tail->next : &queue->head) = p;
    queue->tail = p;
}

/* Takes out a packet that is in the queue; quick for the first, for others as quick as they are near it. */
static inline void colo_queue_remove(ColoQueue *queue, ColoPacket *p)
{
    ColoPacket *before = NULL;
    ColoPacket **at = &queue->head;

    while (*at != p) {
        before = *at;
        at = &before->next;
    }
    *at = p->next;
    if (queue->tail == p) {
        queue->tail = before;
    }
    p->next = NULL;
}

/* Puts @with in the place of @p. */
static inline void colo_queue_replace(ColoQueue *queue, ColoPacket *p, ColoPacket *with)
{
    ColoPacket **at = &queue->head;

    while (*at != p) {
        at = &(*at)->next;
    }
    with->next = p->next;
    *at = with;
    if (queue->tail == p) {
        queue->tail = with;
    }
}

#endif /* NET_COLO_QUEUE_H */
