// Both forms with Go's standard library alone: go run examples/plain_http.go [URL].
// SOFTXENT_KEY is the key, if one is needed.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"os"
)

var (
	logits = [][]float32{{2.0, 1.0, 0.1}, {0.5, 2.5, 0.3}}
	labels = []int64{0, 2}
)

type tensor struct {
	Dtype   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
}

func post(url, mediaType string, body []byte) []byte {
	request, err := http.NewRequest("POST", url+"/v1/cross_entropy", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaType)
	if key := os.Getenv("SOFTXENT_KEY"); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 {
		log.Fatal(answer.Status, " ", string(text), err)
	}
	return text
}

// The safetensors layout: the length of a header, the header in JSON, the numbers.
func toSafetensors() []byte {
	var data bytes.Buffer
	for _, row := range logits {
		binary.Write(&data, binary.LittleEndian, row)
	}
	end := data.Len()
	binary.Write(&data, binary.LittleEndian, labels)
	header, err := json.Marshal(map[string]tensor{
		"logits": {"F32", []int{len(logits), len(logits[0])}, [2]int{0, end}},
		"labels": {"I64", []int{len(labels)}, [2]int{end, data.Len()}},
	})
	if err != nil {
		log.Fatal(err)
	}
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(length, header...), data.Bytes()...)
}

// Returns the float32 numbers of one tensor.
func floats(body []byte, name string) []float32 {
	start := 8 + int(binary.LittleEndian.Uint64(body))
	var header map[string]tensor
	if err := json.Unmarshal(body[8:start], &header); err != nil {
		log.Fatal(err)
	}
	offsets := header[name].Offsets
	numbers := make([]float32, (offsets[1]-offsets[0])/4)
	reader := bytes.NewReader(body[start+offsets[0] : start+offsets[1]])
	if err := binary.Read(reader, binary.LittleEndian, numbers); err != nil {
		log.Fatal(err)
	}
	return numbers
}

func check(form string, loss, gradient []float32) {
	fmt.Println(form+": loss", loss, "gradient", gradient)
	for row := 0; row < len(gradient); row += 3 {
		sum := float64(gradient[row]) + float64(gradient[row+1]) + float64(gradient[row+2])
		if !(math.Abs(sum) < 1e-6) {
			log.Fatal("a row of the gradient sums to ", sum)
		}
	}
}

func main() {
	url := "http://127.0.0.1:8000"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	request, err := json.Marshal(map[string]any{"logits": logits, "labels": labels})
	if err != nil {
		log.Fatal(err)
	}
	var answer struct {
		Loss     []float32
		Gradient [][]float32
	}
	if err := json.Unmarshal(post(url, "application/json", request), &answer); err != nil {
		log.Fatal(err)
	}
	var flat []float32
	for _, row := range answer.Gradient {
		flat = append(flat, row...)
	}
	check("JSON", answer.Loss, flat)
	body := post(url, "application/vnd.safetensors", toSafetensors())
	check("binary", floats(body, "loss"), floats(body, "gradient"))
}
