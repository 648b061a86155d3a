/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - pictures and what preprocessor_config.json makes of them, against Pillow's results
 */
#include <stdlib.h>

#include "formats/file.h"
#include "formats/image_processor.h"
#include "tests/unit/tap.h"

#define DIR "tests/data/images/"

static char *read_text(const char *path, size_t *n)
{
	struct err e;
	char *text;

	if (file_read(path, path, 1 << 20, &text, n, &e))
		abort();
	return text;
}

/* Pixels in hexadecimal, as the .txt files have them. */
static bool same(const struct image *im, size_t height, size_t width, const char *hex)
{
	if (im->height != height || im->width != width || strlen(hex) != 6 * height * width)
		return false;
	for (size_t i = 0; i < 3 * height * width; i++) {
		const char two[] = { hex[2 * i], hex[2 * i + 1], '\0' };

		if (strtoul(two, NULL, 16) != im->px[i])
			return false;
	}
	return true;
}

/* ---- decoding ------------------------------------------------------------------------------ */

static void test_decoded(void)
{
	size_t n;
	char *text = read_text(DIR "decoded.txt", &n), *at = text;

	while (*at) {
		char name[64], path[128], *hex;
		size_t height, width;
		struct image im;
		struct err e;
		int used;

		if (sscanf(at, "%63s %zu %zu %n", name, &height, &width, &used) != 3)
			abort();
		hex = at + used;
		at = strchr(hex, '\n');
		*at++ = '\0';
		snprintf(path, sizeof(path), DIR "%s", name);
		if (!ok(!image_read(&im, path, &e), "%s is read", name))
			continue;
		ok(same(&im, height, width, hex), "%s is what Pillow makes of it", name);
		image_release(&im);
	}
	free(text);
}

/* Every beginning of a picture is refused; what makes it up is the reader's own memory. */
static void test_cut(const char *name)
{
	char path[128];
	size_t n, wrong = 0;
	char *data;
	struct image im;
	struct err e;

	snprintf(path, sizeof(path), DIR "%s", name);
	data = read_text(path, &n);
	for (size_t i = 0; i < n; i++) {
		char *part = malloc(i + 1);

		if (!part)
			abort();
		memcpy(part, data, i);
		wrong += image_decode(&im, part, i, name, &e) != -1 || e.cls != ERR_DATA ||
			 strcmp(e.where, name) || im.px;
		free(part);
	}
	ok(!wrong, "every truncation of %s is refused", name);
	free(data);
}

static void refused(const char *name, const char *why)
{
	char path[128];
	struct image im;
	struct err e;

	snprintf(path, sizeof(path), DIR "%s", name);
	ok(image_read(&im, path, &e) == -1 && e.cls == ERR_DATA && strstr(e.what, why) && !im.px,
	   "%s is refused: %s", name, why);
}

static void refused_text(const char *text, size_t n, const char *why)
{
	struct image im;
	struct err e;

	ok(image_decode(&im, text, n, "x", &e) == -1 && e.cls == ERR_DATA &&
	   strstr(e.what, why) && !im.px, "refused: %s", why);
}

/* A scan again and again, each of which paints the whole picture. */
static void test_scans(void)
{
	size_t n, sos = 0, len;
	char *data = read_text(DIR "scan.jpg", &n), *many, *to;
	struct image im;
	struct err e;

	for (size_t i = 0; i + 1 < n; i++)
		if ((unsigned char)data[i] == 0xff && (unsigned char)data[i + 1] == 0xda)
			sos = i;
	len = n - 2 - sos; /* an EOI stands behind it */
	many = malloc(n + 600 * len);
	if (!sos || !many)
		abort();
	for (size_t times = 100; times <= 600; times += 500) {
		memcpy(many, data, sos);
		to = many + sos;
		for (size_t i = 0; i < times; i++, to += len)
			memcpy(to, data + sos, len);
		memcpy(to, data + n - 2, 2);
		if (times == 100) {
			ok(!image_decode(&im, many, sos + times * len + 2, "scans", &e),
			   "a JPEG of 100 scans is read");
			image_release(&im);
		} else {
			refused_text(many, sos + times * len + 2, "more than 500 scans");
		}
	}
	free(many);
	free(data);
}

static void test_refused(void)
{
	static const char *const whole[] = {
		"rgb.png", "palette4-interlaced.png", "rgba16.png", "rgb.jpg", "progressive.jpg",
		"cmyk.jpg", "rgb.ppm", "wide.ppm", "grey.pgm",
	};
	struct image im;
	struct err e;

	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		test_cut(whole[i]);
	refused("bomb.png", "60000 x 60000 pixels are too many");
	refused("empty.png", "a picture without pixels");
	refused("palette-short.png", "not in its palette");
	refused("decoded.txt", "not a picture");
	refused_text("", 0, "an empty file");
	refused_text("P6 0 3 255\n", 11, "a picture without pixels");
	refused_text("P6 2 1 255\n123456789", 20, "9 bytes of pixels; 2 x 1 pixels have 6");
	refused_text("P6 20000 20000 255\n", 19, "too many");
	refused_text("P6 2 1 65536\n123456", 19, "its header");
	refused_text("P6 2 1 0\n123456", 15, "its header");
	refused_text("P6 2 x 255\n123456", 17, "its header");
	refused_text("P5 1 1 256\n12", 13, "257 levels");
	refused_text("P6 99999999999999999999 1 1\n", 28, "its header");
	ok(image_read(&im, DIR "none.png", &e) == -1 && e.cls == ERR_NOINPUT,
	   "no file: ERR_NOINPUT");
	test_scans();
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static void test_resized(void)
{
	size_t n;
	char *text = read_text(DIR "resized.txt", &n), *at = text;

	while (*at) {
		int filter, used;
		size_t height, width;
		struct image im;
		struct err e;
		char *hex;

		if (sscanf(at, "%d %zu %zu %n", &filter, &height, &width, &used) != 3)
			abort();
		hex = at + used;
		at = strchr(hex, '\n');
		*at++ = '\0';
		if (image_read(&im, DIR "rgb.png", &e) ||
		    image_resize(&im, height, width, (enum image_filter)filter, &e))
			abort();
		ok(same(&im, height, width, hex), "filter %d to %zu x %zu as in Pillow", filter,
		   width, height);
		image_release(&im);
	}
	free(text);
}

static void test_crop(void)
{
	struct image im;
	struct err e;
	bool right = true;

	if (image_alloc(&im, 6, 5, "x", &e))
		abort();
	for (size_t i = 0; i < 90; i++)
		im.px[i] = (uint8_t)i;
	image_center_crop(&im, 2, 3);
	/* rows 1 and 2 of 5, columns 1 to 3 of 6 */
	for (size_t y = 0; y < 2; y++)
		for (size_t x = 0; x < 9; x++)
			right = right && im.px[y * 9 + x] == (y + 1) * 18 + 3 + x;
	ok(right && im.height == 2 && im.width == 3, "the middle, an odd rest below and right");
	image_release(&im);
}

/* ---- preprocessor_config.json --------------------------------------------------------------- */

static bool parse(struct image_processor *p, const char *json, struct err *e)
{
	return !image_processor_parse(p, json, strlen(json), "p.json", e);
}

static void no(const char *json, const char *why)
{
	struct image_processor p;
	struct err e;

	ok(!parse(&p, json, &e) && e.cls == ERR_DATA && !strcmp(e.where, "p.json") &&
	   strstr(e.what, why), "%s: %s", json, why);
}

static void test_parse(void)
{
	struct image_processor p;
	struct err e;

	ok(parse(&p, "{}", &e) && p.resize && p.height == 224 && p.width == 224 && !p.shortest &&
	   p.filter == FILTER_BILINEAR && !p.crop && p.rescale && p.factor == 1 / 255.0 &&
	   p.normalize && p.mean[2] == 0.5f && p.std[0] == 0.5f, "nothing is ViT's default");
	ok(parse(&p, "{\"feature_extractor_type\":\"DeiTFeatureExtractor\"}", &e) && p.crop &&
	   p.height == 256 && p.crop_width == 224 && p.filter == FILTER_BICUBIC, "DeiT's");
	ok(parse(&p, "{\"size\":{\"height\":3,\"width\":4},\"crop_size\":[2,1],\"resample\":null,"
		 "\"do_pad\":false,\"pad_size\":null,\"do_convert_rgb\":true,"
		 "\"data_format\":\"channels_first\"}", &e) && p.height == 3 && p.width == 4 &&
	   p.crop_height == 2 && p.crop_width == 1, "height and width, and what changes nothing");
	ok(parse(&p, "{\"size\":7,\"default_to_square\":false,\"image_std\":2}", &e) &&
	   p.shortest == 7 && p.std[1] == 2, "a number is the shorter side's if it says so");
	no("{\"image_processor_type\":\"CLIPImageProcessor\"}", "'CLIPImageProcessor'");
	no("{\"image_processor_type\":\"ViTImageProcessorx\"}", "'ViTImageProcessorx'");
	no("{\"do_pad\":true}", "do_pad is not supported");
	no("{\"crop_pct\":0.9}", "crop_pct is not supported");
	no("{\"data_format\":\"channels_last\"}", "data_format is not supported");
	no("{\"size\":{\"shortest_edge\":3,\"longest_edge\":9}}", "size is not supported");
	no("{\"size\":{\"height\":3}}", "size is not supported");
	no("{\"size\":0}", "size is not supported");
	no("{\"size\":99999}", "size is not supported");
	no("{\"crop_size\":{\"shortest_edge\":3}}", "crop_size is not supported");
	no("{\"resample\":6}", "resample");
	no("{\"do_resize\":1}", "do_resize is neither true nor false");
	no("{\"image_mean\":[0.5,0.5]}", "image_mean has 2 values");
	no("{\"image_std\":[1,0,1]}", "image_std: value 1");
	no("{\"image_mean\":[1,\"x\",1]}", "image_mean: value 1");
	no("{\"rescale_factor\":\"1\"}", "rescale_factor");
	no("[]", "not a JSON object");
	no("{", "not JSON");
}

static void test_run(void)
{
	uint8_t px[] = { 0, 1, 2, 255, 254, 253 };
	struct image im = { .px = px, .width = 2, .height = 1 };
	struct image_processor p;
	float got[6];
	struct err e;

	if (!parse(&p, "{\"do_resize\":false,\"image_mean\":[0.1,0.2,0.3],\"image_std\":"
		   "[0.5,0.25,3]}", &e))
		abort();
	ok(!image_processor_run(&p, &im, 1, 2, got, "x", &e) &&
	   got[0] == (0 - 0.1f) / 0.5f && got[1] == (1 - 0.1f) / 0.5f &&
	   got[2] == ((float)(1 * (1 / 255.0)) - 0.2f) / 0.25f &&
	   got[5] == ((float)(253 * (1 / 255.0)) - 0.3f) / 3,
	   "channels first, (x/255 - mean) / std");
	ok(image_processor_run(&p, &im, 2, 2, got, "x", &e) == -1 && e.cls == ERR_DATA,
	   "another size than the model's is refused");
	ok_str(e.what, "2 x 1 pixels; the model takes 2 x 2", "naming both");
	p.crop = true;
	ok(image_processor_run(&p, &im, 224, 224, got, "x", &e) == -1 &&
	   strstr(e.what, "crop_size 224 x 224 does not fit into 2 x 1 pixels"), "so is a crop "
	   "that does not fit");
	p.crop = p.rescale = p.normalize = false;
	ok(!image_processor_run(&p, &im, 1, 2, got, "x", &e) && got[1] == 255 && got[4] == 2,
	   "levels as they are");
}

static void test_shortest(void)
{
	struct image_processor p;
	struct image im = { .width = 500, .height = 333 };
	size_t h, w;
	struct err e;

	if (!parse(&p, "{\"size\":{\"shortest_edge\":256}}", &e))
		abort();
	ok(!image_processor_size(&p, &im, &h, &w, "x", &e) && h == 256 && w == 384,
	   "the shorter side, the other cut to whole pixels");
	im.width = 10;
	ok(!image_processor_size(&p, &im, &h, &w, "x", &e) && h == 8524 && w == 256, "upright too");
	im.width = 1;
	im.height = 89000000;
	ok(image_processor_size(&p, &im, &h, &w, "x", &e) == -1 && e.cls == ERR_DATA,
	   "a thread of a picture is refused");
}

int main(void)
{
	test_decoded();
	test_refused();
	test_resized();
	test_crop();
	test_parse();
	test_run();
	test_shortest();
	return done();
}
