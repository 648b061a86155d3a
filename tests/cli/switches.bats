#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# switches.bats - a key of config.json that switches something in a family is computed: a model
# with the key turned and its tensors changed, against a plain forward pass in float64

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_TEST_TMPDIR"
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
	opt=$DATA/opt-post-proj vit=$DATA/vit
	"$PYTHON" "$ROOT/tests/golden.py" inputs "$opt" > ids
}

plain() {
	"$PYTHON" "$ROOT/tests/plainforward.py" "$@"
}

computes() {	# computes MODEL NAME: what it should; into NAME.qp
	if grep -q '"vit"' "$1/config.json"; then
		calib-pack -q --images -m "$1" -n 4 --sampling=sequential \
			"$vit/golden.safetensors" > calib.qp
		qp-forward -q --hidden -c calib.qp "$1" > "$2.qp"
		plain compare "$1" "$vit/golden.safetensors" "$2.qp"
	else
		qp-forward -q --hidden -i ids "$1" > "$2.qp"
		plain compare "$1" ids "$2.qp"
	fi
}

# MODEL with changes computes what it should, and that is not what the unchanged one does.
switched() {	# switched MODEL NAME CHANGE...
	plain change "$@"
	computes "$2" "$2"
	computes "$1" was
	differs was "$2"
}

differs() {	# differs A B: in the last tensors, the logits
	run -0 "$PYTHON" -c '
import sys
from golden import tensors
a, b = (tensors(p + ".qp") for p in sys.argv[1:])
x, y = a["logits.0"], b["logits.0"]
d = abs(x - y).max() / abs(x).max()
print("differ by", d)
assert d > 1e-3' "$1" "$2"
}

@test "switches: the plain forward pass finds what transformers computed, and what is wrong" {
	computes "$opt" opt
	computes "$vit" vit
	plain change "$vit" other layer_norm_eps=1e-2
	run -1 plain compare other "$vit/golden.safetensors" vit.qp
	[[ $output == hidden* ]]
}

@test "switches: OPT: enable_bias false: no linear has one, norms keep theirs" {
	switched "$opt" bare enable_bias=false '-(_proj|fc[12])\.bias$'
}

@test "switches: OPT: layer_norm_elementwise_affine false: norms without gain and bias" {
	switched "$opt" bare layer_norm_elementwise_affine=false '-layer_norm\.'
	# and the final one, where there is one
	switched "$opt" before layer_norm_elementwise_affine=false do_layer_norm_before=true \
		'-layer_norm\.'
}

@test "switches: OPT: _remove_final_layer_norm true: none behind the last block" {
	local final=model.decoder.final_layer_norm
	switched "$opt" before do_layer_norm_before=true "+$final.weight=64" "+$final.bias=64"
	switched before removed _remove_final_layer_norm=true "-$final\\."
}

@test "switches: OPT: activation_function gelu_new and gelu in relu's place" {
	switched "$opt" tanh activation_function='"gelu_new"'
	switched "$opt" erf activation_function='"gelu"'
}

@test "switches: ViT: qkv_bias false: q, k and v have none" {
	switched "$vit" bare qkv_bias=false '-(query|key|value)\.bias$'
}

@test "switches: ViT: hidden_act gelu_new is the tanh form, not erf's" {
	plain change "$vit" new hidden_act='"gelu_new"'
	computes new new
	computes "$vit" erf
	run -1 plain compare "$vit" "$vit/golden.safetensors" new.qp
	run -1 plain compare new "$vit/golden.safetensors" erf.qp
}

@test "switches: tensors that a switch leaves without a use, or without which it is, are named" {
	plain change "$opt" more enable_bias=false
	refuses 65 'model\.decoder\.layers\.0\..*\.bias' qp-forward -i ids more
	plain change "$opt" less '-fc1\.bias$'
	refuses 65 'model\.decoder\.layers\.0\.fc1\.bias' qp-forward -i ids less
}

# A qwen2 model of four layers.
qwen2() {	# qwen2 NAME
	local i biases=()
	"$PYTHON" "$ROOT/tests/mkmodel.py" llama hidden=32 ffn=64 layers=4 heads=4 kv=2 vocab=320
	for i in 0 1 2 3; do
		biases+=("+model.layers.$i.self_attn.q_proj.bias=32"
			"+model.layers.$i.self_attn.k_proj.bias=16"
			"+model.layers.$i.self_attn.v_proj.bias=16")
	done
	plain change llama "$1" 'architectures=["Qwen2ForCausalLM"]' 'model_type="qwen2"' \
		attention_bias= mlp_bias= use_sliding_window=false sliding_window=5 \
		max_window_layers=2 "${biases[@]}"
}

@test "switches: Qwen2: use_sliding_window: layers from max_window_layers on have the window" {
	qwen2 q
	computes q q
	switched q two use_sliding_window=true
	switched q all use_sliding_window=true max_window_layers=0
	switched two three use_sliding_window=true max_window_layers=1
	# the layers below have none: their hidden states are those of the model without windows
	"$PYTHON" -c '
from golden import tensors
a, b = tensors("q.qp"), tensors("two.qp")
for i, same in enumerate((True, True, True, False, False)):
    assert (a["hidden.0.%d" % i] == b["hidden.0.%d" % i]).all() == same, i'
}

@test "switches: Qwen2: no window without the switch, or with as many layers below it" {
	qwen2 q
	computes q q
	plain change q high use_sliding_window=true max_window_layers=4
	computes high high
	qp-cmp -q q.qp high.qp
	plain change q wide use_sliding_window=true sliding_window=48 max_window_layers=0
	computes wide wide
	qp-cmp -q q.qp wide.qp
}
