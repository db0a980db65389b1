/*
 * The stream on a chardev: packets behind their lengths
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_WIRE_H
#define NET_COLO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/colo/packet.h"

/* Bytes before a packet: its length and, with virtio-net headers, the length of that header. */
#define COLO_WIRE_HEADER_MAX 8

typedef struct ColoWireReader ColoWireReader;

/* One packet of the stream, @frame with its virtio-net header in front.  Valid until the callee returns. */
typedef void ColoWirePacket(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque);

/* @vnet: the stream carries the length of each packet's virtio-net header. */
ColoWireReader *colo_wire_reader_new(bool vnet);
void colo_wire_reader_free(ColoWireReader *reader);

/* Forgets what is half read: the stream begins anew. */
void colo_wire_reader_reset(ColoWireReader *reader);

/* True if a packet has been read in part. */
bool colo_wire_reader_is_amid(const ColoWireReader *reader);

/*
 * Takes the next @len bytes of the stream, cut anywhere, and calls @packet for each packet that they complete.
 *
 * Returns: true, or false if the stream has ended because of an impossible length, which is left in @bad;
 * nothing more is read until colo_wire_reader_reset().
 */
bool colo_wire_read(ColoWireReader *reader, const uint8_t *bytes, size_t len, ColoWirePacket *packet,
                    void *opaque, uint32_t *bad);

/* Writes the header for a packet to @header; returns its length (4 or 8). */
size_t colo_wire_header(uint8_t header[COLO_WIRE_HEADER_MAX], bool vnet, uint32_t size, uint32_t vnet_len);

/*
 * The mark of an epoch: a frame that a guest's output stream carries where the guest resumed from a checkpoint.
 * @number: the checkpoints since COLO began.  See docs/how-it-works.rst.
 */
#define COLO_EPOCH_MARK_SIZE 32
void colo_epoch_mark(uint8_t mark[COLO_EPOCH_MARK_SIZE], uint64_t number);

/* True for such a frame (@frame without its virtio-net header); @number may be NULL. */
bool colo_is_epoch_mark(const uint8_t *frame, size_t size, uint64_t *number);

#endif /* NET_COLO_WIRE_H */
