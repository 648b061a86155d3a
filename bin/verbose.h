/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbose.h - what -v says of a program that takes a stream and makes one
 */
#ifndef QP_VERBOSE_H
#define QP_VERBOSE_H

#include "lib/base/cli.h"
#include "lib/base/usage.h"
#include "lib/data/stream.h"

static inline void say_usage(const struct stream_in *in, const struct stream_out *out)
{
	if (cli_verbose())
		cli_warn("read %.2f s, write %.2f s, peak %.1f MiB", stream_in_seconds(in),
			 stream_out_seconds(out), (double)usage_peak_bytes() / 1048576);
}

#endif
