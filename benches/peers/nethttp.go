// The token route in Go with net/http and golang-jwt. It mints tokens like the snippet in Rollout's docs.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt"
)

var (
	sessionSecret = []byte(os.Getenv("SESSION_SECRET"))
	clientID      = os.Getenv("ROLLOUT_CLIENT_ID")
	clientSecret  = []byte(os.Getenv("ROLLOUT_CLIENT_SECRET"))
)

type answer struct {
	Token     string `json:"token"`
	ExpiresIn int    `json:"expires_in"`
}

func token(w http.ResponseWriter, r *http.Request) {
	session, isBearer := cut(r.Header.Get("Authorization"), "Bearer ")
	user := jwt.MapClaims{}
	key := func(*jwt.Token) (interface{}, error) { return sessionSecret, nil }
	_, err := jwt.ParseWithClaims(session, user, key, jwt.WithValidMethods([]string{"HS256"}))
	if !isBearer || err != nil {
		http.Error(w, `{"error":"unauthorized"}`, http.StatusUnauthorized)
		return
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": clientID,
		"sub": user["sub"],
		"iat": now.Unix(),
		"exp": now.Add(15 * time.Minute).Unix(),
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS512, claims).SignedString(clientSecret)
	if err != nil {
		http.Error(w, `{"error":"internal"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer{signed, 900})
}

func cut(text, prefix string) (string, bool) {
	return strings.TrimPrefix(text, prefix), strings.HasPrefix(text, prefix)
}

func main() {
	http.HandleFunc("/rollout/token", token)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
