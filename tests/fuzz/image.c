/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - fuzz target: pictures, and preprocessor_config.json (input that begins with '{')
 *
 * What is refused must say why and leave no memory; what is accepted must be of some size.
 */
#include <stdint.h>
#include <stdlib.h>

#include "formats/image_processor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition)
{
	if (!condition)
		abort();
}

static void refused(const struct err *e)
{
	must((e->cls == ERR_DATA || e->cls == ERR_NOMEM) && e->where[0] && e->what[0]);
}

static void processor(const uint8_t *data, size_t n)
{
	uint8_t px[7 * 5 * 3] = { 1, 200, 30 };
	struct image im = { .px = px, .width = 7, .height = 5 };
	struct image_processor p;
	size_t height, width;
	struct err e;

	if (image_processor_parse(&p, (const char *)data, n, "fuzz", &e) ||
	    image_processor_size(&p, &im, &height, &width, "fuzz", &e))
		refused(&e);
	else
		must(height && width);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct image im;
	struct err e;

	if (n && *data == '{') {
		processor(data, n);
	} else if (image_decode(&im, data, n, "fuzz", &e)) {
		must(!im.px);
		refused(&e);
	} else {
		must(im.width && im.height && im.px);
		/* small ones only: the time goes into the decoders */
		if (im.width * im.height < 4096 &&
		    image_resize(&im, 1 + n % 9, 1 + n % 7, (enum image_filter)(n % FILTER_COUNT),
				 &e))
			refused(&e);
		image_release(&im);
	}
	return 0;
}
