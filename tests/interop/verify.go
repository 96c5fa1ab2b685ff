// Verifies tokens with Go's golang-jwt v4, the version that Debian packages, called as its own documentation shows.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/golang-jwt/jwt"
)

func verify(token, secret, issuer string) (string, error) {
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS512"}), jwt.WithJSONNumber())
	key := func(*jwt.Token) (interface{}, error) { return []byte(secret), nil }
	if _, err := parser.ParseWithClaims(token, claims, key); err != nil {
		return "", err
	}
	if !claims.VerifyIssuer(issuer, true) {
		return "", fmt.Errorf("another issuer")
	}
	text, err := json.Marshal(claims)
	return string(text), err
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		answer, text := "accepted", ""
		claims, err := verify(fields[3], fields[1], fields[2])
		if err != nil {
			answer, text = "refused", err.Error()
		} else {
			text = claims
		}
		fmt.Println(strings.Join([]string{"golang-jwt", os.Getenv("VERSION"), fields[0], answer, text}, "\t"))
	}
}
