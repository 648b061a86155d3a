/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - the device that --device, --threads and --compute ask for */
#ifndef QP_BIN_DEVICE_H
#define QP_BIN_DEVICE_H

#include "lib/base/cli.h"
#include "lib/compute/backend.h"

/* Open it or die; backend_close(be). */
static inline void open_device(struct backend *be)
{
	struct err e;

	if (backend_open(be, cli_device(), cli_threads(), &e) < 0 ||
	    backend_compute(be, cli_compute(), &e) < 0)
		cli_die(&e);
	if (be->warning)
		cli_warn("%s", be->warning);
	if (cli_verbose() && be->alone.cls)
		cli_warn("threads are not shared with other programs: %s: %s", be->alone.where,
			 be->alone.what);
}

#endif
