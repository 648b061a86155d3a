/* SPDX-License-Identifier: Apache-2.0 */
/* pack-int8 - codes of 2 to 8 bits side by side, and nothing that only quantizers want */
#include "bin/packing.h"

static const char usage[] =
	"usage: pack-int8 [options] [IN [OUT]]\n\n"
	"Pack codes of 2 to 8 bits and drop what they replace.\n\n"
	PACKING_HELP;

int main(int argc, char **argv)
{
	return packing_run(argc, argv, usage, 8);
}
