/** The app's sessions: the user by the id in the cookie. */
export const sessions = new Map();
