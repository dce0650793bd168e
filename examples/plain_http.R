# Both forms with R alone, and no package: Rscript examples/plain_http.R [URL].
# SOFTXENT_KEY is the key, if one is needed.

logits <- rbind(c(2.0, 1.0, 0.1), c(0.5, 2.5, 0.3))
labels <- c(0L, 2L)

url <- commandArgs(trailingOnly = TRUE)
url <- if (length(url)) url[1] else "http://127.0.0.1:8000"
address <- regmatches(url, regexec("^http://([^:/]+):?([0-9]*)$", url))[[1]]
port <- if (nzchar(address[3])) as.integer(address[3]) else 80L

# Little-endian bytes, row by row: R itself stores columns.
floats <- function(values) writeBin(as.vector(t(values)), raw(), size = 4, endian = "little")
int32s <- function(values) writeBin(values, raw(), size = 4, endian = "little")

# Returns the bytes of the answer's body.
post <- function(media_type, body) {
  key <- Sys.getenv("SOFTXENT_KEY")
  head <- c(
    "POST /v1/cross_entropy HTTP/1.1",
    paste0("Host: ", address[2], ":", port),
    paste("Content-Type:", media_type),
    paste("Content-Length:", length(body)),
    if (nzchar(key)) paste("Authorization: Bearer", key),
    "Connection: close", "", ""
  )
  connection <- socketConnection(address[2], port, blocking = TRUE, open = "r+b", timeout = 60)
  on.exit(close(connection))
  writeBin(c(charToRaw(paste(head, collapse = "\r\n")), body), connection)
  answer <- raw()
  while (length(piece <- readBin(connection, raw(), 65536))) answer <- c(answer, piece)
  end <- grepRaw("\r\n\r\n", answer, fixed = TRUE)
  if (!grepl("^HTTP/1.1 200 ", rawToChar(answer[seq_len(end)]))) {
    stop(rawToChar(answer), call. = FALSE)
  }
  answer[-seq_len(end + 3)]
}

# The numbers of one member of a JSON object that holds only numbers and arrays of them.
member <- function(text, name) {
  found <- regmatches(text, regexec(paste0('"', name, '":(\\[[][0-9.,eE+-]*\\])'), text))[[1]][2]
  as.numeric(regmatches(found, gregexpr("-?[0-9][0-9.eE+-]*", found))[[1]])
}

# The safetensors layout: the length of a header, the header in JSON, the numbers.
to_safetensors <- function() {
  end <- 4L * length(logits)
  header <- charToRaw(sprintf(
    paste0(
      '{"logits":{"dtype":"F32","shape":[%d,%d],"data_offsets":[0,%d]},',
      '"labels":{"dtype":"I32","shape":[%d],"data_offsets":[%d,%d]}}'
    ),
    nrow(logits), ncol(logits), end, length(labels), end, end + 4L * length(labels)
  ))
  c(int32s(c(length(header), 0L)), header, floats(logits), int32s(labels))
}

# The float32 numbers of one tensor.
tensor <- function(body, name) {
  start <- 8 + readBin(body, integer(), size = 4, endian = "little")
  header <- rawToChar(body[9:start])
  pattern <- paste0('"', name, '":\\{[^}]*"data_offsets":\\[([0-9]+),([0-9]+)\\]')
  offsets <- as.integer(regmatches(header, regexec(pattern, header))[[1]][2:3])
  numbers <- body[start + seq(offsets[1] + 1, offsets[2])]
  readBin(numbers, numeric(), length(numbers) / 4, size = 4, endian = "little")
}

check <- function(form, loss, gradient) {
  numbers <- function(values) paste(signif(values, 7), collapse = " ")
  cat(form, ": loss ", numbers(loss), " gradient ", numbers(gradient), "\n", sep = "")
  sums <- colSums(matrix(gradient, ncol(logits)))
  stopifnot("a row of the gradient does not sum to 0" = all(abs(sums) < 1e-6))
}

rows <- apply(logits, 1, function(row) sprintf("[%s]", paste(row, collapse = ",")))
request <- sprintf(
  '{"logits":[%s],"labels":[%s]}', paste(rows, collapse = ","), paste(labels, collapse = ",")
)
answer <- rawToChar(post("application/json", charToRaw(request)))
check("JSON", member(answer, "loss"), member(answer, "gradient"))
body <- post("application/vnd.safetensors", to_safetensors())
check("binary", tensor(body, "loss"), tensor(body, "gradient"))
