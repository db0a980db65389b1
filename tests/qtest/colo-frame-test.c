/*
 * Tests of what the frame needs of the host's devices, in a QEMU without a guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"

/* PCI configuration, mechanism #1; the PIIX3's IDE function is 00:01.1. */
#define CONFIG_ADDRESS  0xcf8
#define CONFIG_DATA     0xcfc
#define IDE_FUNCTION    0x80000900
#define PCI_COMMAND     0x04
#define PCI_IO_AND_BUS_MASTER   0x05
#define PCI_BAR4        0x20

/* The first channel: ATA's task file, and the bus master's registers. */
#define BUS_MASTER      0xc000
#define BM_COMMAND      (BUS_MASTER + 0)
#define BM_STATUS       (BUS_MASTER + 2)
#define BM_TABLE        (BUS_MASTER + 4)
#define BM_START        0x01
#define BM_INTERRUPT    0x04
#define ATA_COUNT       0x1f2
#define ATA_LBA_LOW     0x1f3
#define ATA_LBA_MID     0x1f4
#define ATA_LBA_HIGH    0x1f5
#define ATA_DEVICE      0x1f6
#define ATA_COMMAND     0x1f7
#define ATA_LBA         0xe0
#define ATA_WRITE_DMA   0xca

/* In the guest's memory. */
#define TABLE           0x10000
#define BUFFER          0x20000
#define END_OF_TABLE    0x80000000

#define SECTORS         2
#define LBA             12

static void write_config(QTestState *qts, uint32_t offset, uint32_t value)
{
    qtest_outl(qts, CONFIG_ADDRESS, IDE_FUNCTION | offset);
    qtest_outl(qts, CONFIG_DATA, value);
}

/* A write of the disk, up to what starts its DMA. */
static void command_write(QTestState *qts)
{
    write_config(qts, PCI_BAR4, BUS_MASTER);
    write_config(qts, PCI_COMMAND, PCI_IO_AND_BUS_MASTER);
    qtest_writel(qts, TABLE, BUFFER);
    qtest_writel(qts, TABLE + 4, END_OF_TABLE | SECTORS * 512);
    qtest_outl(qts, BM_TABLE, TABLE);
    qtest_outb(qts, ATA_DEVICE, ATA_LBA);
    qtest_outb(qts, ATA_COUNT, SECTORS);
    qtest_outb(qts, ATA_LBA_LOW, LBA);
    qtest_outb(qts, ATA_LBA_MID, 0);
    qtest_outb(qts, ATA_LBA_HIGH, 0);
    qtest_outb(qts, ATA_COMMAND, ATA_WRITE_DMA);
}

static void wait_for_dma(QTestState *qts)
{
    for (int i = 0; !(qtest_inb(qts, BM_STATUS) & BM_INTERRUPT); i++) {
        g_assert_cmpint(i, <, 1000);
        g_usleep(1000);
    }
}

/* A guest is saved between the command and the start of its DMA, as at a checkpoint, and goes on: it has one write, and no more. */
static void test_ide_goes_on(void)
{
    QTestState *qts = qtest_init("-machine pc -nodefaults -drive if=none,id=d0,driver=null-co,size=1M "
                                 "-device ide-hd,drive=d0,bus=ide.0");

    qtest_qmp_assert_success(qts, "{'execute': 'stop'}");
    command_write(qts);
    qtest_qmp_assert_success(qts, "{'execute': 'xen-save-devices-state', "
                             "'arguments': {'filename': '/dev/null', 'live': false}}");
    qtest_outb(qts, BM_COMMAND, BM_START);
    wait_for_dma(qts);
    g_assert_cmpint(qtest_inb(qts, ATA_COUNT), ==, 0);
    g_assert_cmpint(qtest_inb(qts, ATA_LBA_LOW), ==, LBA + SECTORS);
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    qtest_qmp_eventwait(qts, "RESUME");
    /* What is to be issued again would be by now: it is done before the monitor gets its turn. */
    qtest_qmp_assert_success(qts, "{'execute': 'query-status'}");
    g_assert_cmpint(qtest_inb(qts, ATA_COUNT), ==, 0);
    g_assert_cmpint(qtest_inb(qts, ATA_LBA_LOW), ==, LBA + SECTORS);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/colo/frame/ide-goes-on", test_ide_goes_on);
    return g_test_run();
}
