# SPDX-License-Identifier: Apache-2.0
# experiments.mk - a grid of models, recipes and bit widths: one table, one plot
#
#     make -f pipelines/experiments.mk -j2 CALIB=train.txt EVAL=wiki.test.raw \
#          MODELS="m/SmolLM2-135M m/TinyStories" RECIPES="rtn gptq rotate-gptq" BITS="3 4 8"
#
# Statistics are recorded once a model and shared by all its recipes.  Every file appears only when
# it is whole, so after a crash the same command goes on where it stopped, and -j works; *.tmp and
# *.part are what a killed program left.  Results: OUT/table.tsv, OUT/plot.svg, OUT/plot.png
# ("table": without the plot, which takes gnuplot).
#
# A recipe is a pipeline from the recorded stream to a quantized one; more of them:
#
#     RECIPE_mine = smooth -a 0.3 | gptq -b $(B) -g 64 --act-order

MODELS   ?= $(error MODELS= names the models)
CALIB    ?= $(error CALIB= names a text to calibrate on)
EVAL     ?= $(error EVAL= names a text to evaluate on)
OUT      ?= experiments
RECIPES  ?= rtn gptq rotate-gptq
BITS     ?= 3 4 8
GROUP    ?= -1
NSAMPLES ?= 128
SEQLEN   ?= 512
EVALFLAGS ?=
ROTATIONS ?= r1,r2,r3,r4

RECIPE_rtn          = rtn -q -b $(B) -g $(GROUP)
RECIPE_gptq         = gptq -q -b $(B) -g $(GROUP)
RECIPE_gptq-order   = gptq -q -b $(B) -g $(GROUP) --act-order
RECIPE_smooth-gptq  = smooth -q -a 0.5 | gptq -q -b $(B) -g $(GROUP)
RECIPE_rotate-gptq  = rotate -q | gptq -q -b $(B) -g $(GROUP)
# Of models with layer norms (OPT, ViT) Hessians cannot follow, but can be recorded behind.
RECIPE_rotate-record-gptq = rotate -q | record-acts -q --stats=hessian - | gptq -q -b $(B) -g $(GROUP)
RECIPE_smoothquant  = smooth -q -a 0.5 --edges=attn.in,mlp.in | rtn -q -b $(B) -g -1 | \
                      quant-acts -q -p w8a8
RECIPE_quarot       = rotate -q -r $(ROTATIONS) | gptq -q -b $(B) -g -1 --mse | \
                      quant-acts -q -p w4a4kv4

.DELETE_ON_ERROR:
.PHONY: all table plot
all: table plot
table: $(OUT)/table.tsv
plot: $(OUT)/plot.svg $(OUT)/plot.png

# One model: $(1) is its path, $(2) its name.
define model
JSON += $(OUT)/$(2)/full.json $(foreach r,$(RECIPES),$(foreach b,$(BITS),$(OUT)/$(2)/$(r).$(b).json))

$(OUT)/$(2)/calib.qp: $(CALIB)
	@mkdir -p $$(@D)
	calib-pack -q -m $(1) -n $(NSAMPLES) -s $(SEQLEN) $(CALIB) -o $$@

$(OUT)/$(2)/acts.qp: $(OUT)/$(2)/calib.qp
	record-acts -q -c $$< $(1) -o $$@

$(OUT)/$(2)/full.qp: $(OUT)/$(2)/calib.qp
	record-acts -q --stats=none $(1) -o $$@
$(foreach r,$(RECIPES),$(foreach b,$(BITS),$(call quantize,$(2),$(r),$(b))))
endef

# Model $(1), recipe $(2), bits $(3).
define quantize

$(OUT)/$(1)/$(2).$(3).qp: B = $(3)
$(OUT)/$(1)/$(2).$(3).qp: $(OUT)/$(1)/acts.qp
	{ $$(RECIPE_$(2)); } < $$< | pack-int8 -q --float=bf16 -o $$@
endef

$(foreach r,$(RECIPES),$(if $(value RECIPE_$(r)),,$(error no RECIPE_$(r))))
$(foreach m,$(MODELS),$(eval $(call model,$(m),$(notdir $(m:%/=%)))))

$(OUT)/%.json: $(OUT)/%.qp $(EVAL)
	eval-ppl -q --json $(EVALFLAGS) $< < $(EVAL) > $@.part
	mv $@.part $@

# model, recipe, bits, bytes, perplexity, its standard error
field = sed -n 's/.*"$(1)": *\([-0-9.e+]*\).*/\1/p'
$(OUT)/table.tsv: $(JSON)
	@printf 'model\trecipe\tbits\tbytes\tppl\tstderr\n' > $@.part
	@for f in $^; do \
		m=$${f#$(OUT)/} m=$${m%%/*} r=$${f##*/} r=$${r%.json} b=-; \
		case $$r in *.*) b=$${r##*.} r=$${r%.*} ;; esac; \
		printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$$m" "$$r" "$$b" "$$(wc -c < "$${f%.json}.qp")" \
			"$$($(call field,ppl) "$$f")" "$$($(call field,stderr) "$$f")"; \
	done >> $@.part
	@mv $@.part $@
	@cat $@

# Perplexity against size, a line for each model and recipe.
define draw
NR > 1 {
	k = $$1 " " $$2
	if (!(k in n)) keys[++c] = k
	n[k] = n[k] $$4 / 1e6 "\t" $$5 "\n"
	if ($$5 + 0 <= 0 || $$5 + 0 > 1e9) next
	if (!hi || $$5 + 0 < lo) lo = $$5 + 0
	if ($$5 + 0 > hi) hi = $$5 + 0
}
END {
	printf "set terminal %s; set output \"%s\"; set datafile separator \"\\t\"\n", term, to
	print "set xlabel \"MB\"; set ylabel \"perplexity\"; set logscale y; set key outside; set grid"
	for (ten = 1; ten <= hi * 1.05; ten *= 10)
		for (i = split("1 1.5 2 3 4 5 6 8", step, " "); i > 0; i--)
			if (lo / 1.05 <= ten * step[i] && ten * step[i] <= hi * 1.05)
				tics = tics (tics == "" ? "" : ", ") ten * step[i]
	if (tics != "")
		printf "set yrange [%s:%s]; set ytics (%s)\n", lo / 1.05, hi * 1.05, tics
	for (i = 1; i <= c; i++)
		printf "$$d%d << E\n%sE\n", i, n[keys[i]]
	for (i = 1; i <= c; i++)
		printf "%s$$d%d using 1:2 with linespoints title \"%s\" noenhanced", \
			(i == 1 ? "plot " : ", "), i, keys[i]
	print ""
}
endef
export draw

$(OUT)/plot.svg: TERM = svg size 800,600 dynamic
$(OUT)/plot.png: TERM = pngcairo size 800,600
$(OUT)/plot.svg $(OUT)/plot.png: $(OUT)/table.tsv
	@command -v gnuplot > /dev/null || \
		{ echo "$@: needs gnuplot; the target table does not" >&2; exit 69; }
	@awk -F '\t' -v term='$(TERM)' -v to=$@.part "$$draw" $< > $@.gp
	@gnuplot $@.gp
	@mv $@.part $@
	@rm $@.gp
